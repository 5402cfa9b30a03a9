package evidence_test

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/evidence"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want evidence.Kind
	}{
		{nil, evidence.None},
		{context.Canceled, evidence.None},
		{&net.OpError{Op: "dial", Err: context.Canceled}, evidence.None},
		{&failover.DropError{Endpoint: "db", Kind: failover.Fenced}, evidence.None},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, evidence.Lost},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, evidence.Lost},
		{&net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, evidence.Lost},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, evidence.Lost},
		{&net.DNSError{Err: "i/o timeout", IsTimeout: true}, evidence.Lost},
		{io.EOF, evidence.Lost},
		{fmt.Errorf("failed to receive message: %w", io.ErrUnexpectedEOF), evidence.Lost},
		{syscall.ECONNRESET, evidence.Lost},
		{sqlState("57P02"), evidence.Lost},
		{sqlState("57P03"), evidence.Lost},
		{sqlState("08006"), evidence.Lost},
		{sqlState("58030"), evidence.Lost},
		{sqlState("57P01"), evidence.Ended},
		{sqlState("57P05"), evidence.Ended},
		{context.DeadlineExceeded, evidence.TimedOut},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, evidence.TimedOut},
		{sqlState("53300"), evidence.Busy},
		{sqlState("53400"), evidence.Busy},
		{sqlState("28P01"), evidence.Refused},
		{sqlState("28000"), evidence.Refused},
		{sqlState("3D000"), evidence.Refused},
		{sqlState("57P04"), evidence.Refused},
		{sqlState("42501"), evidence.Refused},
		{x509.UnknownAuthorityError{}, evidence.Refused},
		{sqlState("25006"), evidence.WentReadOnly},
		{&net.OpError{Op: "dial", Err: syscall.EMFILE}, evidence.Local},
		{sqlState("23505"), evidence.Answered},
		{sqlState("57014"), evidence.Interrupted},
		{sqlState("40001"), evidence.Interrupted},
		// A statement that its deadline cancelled, and whose server said so, was answered.
		{errors.Join(context.DeadlineExceeded, sqlState("57014")), evidence.Interrupted},
		{fmt.Errorf("wrapped: %w", errors.Join(io.EOF, sqlState("57P01"))), evidence.Ended},
		{sqlState(""), evidence.Unclear},
		{driver.ErrBadConn, evidence.Unclear},
		{errors.New("whatever"), evidence.Unclear},
	} {
		if got := evidence.Of(c.err); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

// sqlState is a server's answer.
type sqlState string

func (s sqlState) Error() string    { return "server says " + string(s) }
func (s sqlState) SQLState() string { return string(s) }
