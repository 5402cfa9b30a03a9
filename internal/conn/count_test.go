package conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/lib/pq"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// What is counted of an error names who ended the connection, where that is known.
func TestErrorCodes(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&pq.Error{Code: "57P01"}, "57P01"},
		{&failover.DropError{Kind: failover.Fenced}, "fenced"},
		{&failover.DropError{Kind: failover.Moved}, "moved"},
		{&failover.DropError{Kind: failover.Hung}, "hung"},
		{sqlstate.ErrSyncWait, "sync_wait"},
		{context.DeadlineExceeded, "deadline"},
		{context.Canceled, "canceled"},
		{syscall.ECONNREFUSED, "refused"},
		{syscall.EHOSTUNREACH, "unreachable"},
		{io.ErrUnexpectedEOF, "reset"},
		{&net.DNSError{}, "dns"},
		{net.ErrClosed, "closed"},
		{errors.New("else"), "other"},
	} {
		lost := &LostError{Kind: ErrOutcomeUnknown, Err: fmt.Errorf("read: %w", test.err)}
		if got := errorCode(lost); got != test.want {
			t.Errorf("%v counts as %s, want %s", test.err, got, test.want)
		}
	}
}
