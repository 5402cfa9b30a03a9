package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The socket of a cancel request lives for CloseLimit.
func TestCancelRequestIsBrief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		start := time.Now()
		c, err := DialCancel(t.Context(), "tcp", "", func(context.Context, string, string) (net.Conn, error) { return client, nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("read: %v, want a closed socket", err)
		}
		if took := time.Since(start); took != CloseLimit {
			t.Errorf("closed after %v, want %v", took, CloseLimit)
		}
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}
