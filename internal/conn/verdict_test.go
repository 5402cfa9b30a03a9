package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/base"
)

// overBase is pgx's or lib/pq's connection after a call that was sent and came back with driver.ErrBadConn.
type overBase struct {
	base.Conn
	closed bool
}

func (overBase) Known() bool             { return true }
func (overBase) Counts() bool            { return true }
func (overBase) Busy() bool              { return false }
func (overBase) Sent(int64) bool         { return true }
func (overBase) TxStatus() base.TxStatus { return base.TxUnknown }
func (overBase) Standby() base.Answer    { return base.No }
func (o overBase) Closed() bool          { return o.closed }

// A call that was sent is called undone only where the base is known to have looked at its context before it sent more: pgx, whose
// connection goes on. Lib/pq says driver.ErrBadConn of one that is over, which the socket may not know yet.
func TestBadConnAsTheContextEnds(t *testing.T) {
	ended, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, c := range []struct {
		name          string
		obeys, closed bool
		ctx           context.Context
		want          error
	}{
		{"pgx, which goes on", true, false, ended, context.DeadlineExceeded},
		{"pgx, which is over", true, true, ended, ErrOutcomeUnknown},
		{"lib/pq", false, false, ended, ErrOutcomeUnknown},
		{"lib/pq, which is over", false, true, ended, ErrOutcomeUnknown},
		{"lib/pq, before the context's end", false, true, t.Context(), ErrOutcomeUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(Options{Name: "app"}, straight{})
			ph := &physical{}
			ph.pool, ph.endpoint, ph.base, ph.features, ph.obeys = p, &base.Endpoint{Name: "db"}, overBase{closed: c.closed}, new(base.Features), c.obeys
			got := (&Conn{pool: p}).verdict(c.ctx, ph, 0, statement, "INSERT", driver.ErrBadConn)
			var lost *LostError
			if !errors.Is(got, c.want) || errors.As(got, &lost) != (c.want == ErrOutcomeUnknown) || errors.Is(got, driver.ErrBadConn) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
