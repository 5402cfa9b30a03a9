package conn

import (
	"context"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/wire"
	"github.com/managedpg/managedpg/stats"
)

// settle makes the connection fit for its next statement after a cancel request: that was read to its end, so the signal has
// been sent, and one round trip takes it. PostgreSQL drops a cancel that arrives while it waits for a command (ProcessInterrupts
// in postgres.c, when DoingCommandRead is set). A connection that can't be made fit is closed.
func (ph *physical) settle(ctx context.Context) error {
	r := ph.cancels.Pending()
	if r == nil {
		return nil
	}
	select {
	case <-r.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	ph.cancels.Forget()
	switch {
	case ph.cancelled:
		ph.pool.Recorder.CountCancel(stats.CancelConfirmed)
	case !ph.lost() && !ph.gaveRows: // what their reader was told isn't known here
		ph.pool.Recorder.CountCancel(stats.CancelTooLate)
	}
	ph.cancelled = false
	if ph.lost() {
		return nil // the next call finds out
	}
	if !r.Clean() {
		ph.base.Kill(base.ErrCancelAstray)
		return nil
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), wire.CloseLimit)
	defer cancel()
	if err := ph.base.RoundTrip(limit); err != nil && sqlstate.Of(err) != sqlstate.QueryCanceled {
		ph.base.Kill(err)
	}
	return nil
}

// CountCancel is base.Cancels.Counter's.
func (p *Pool) CountCancel(what base.CancelEvent) {
	switch what {
	case base.CancelSent:
		p.Recorder.CountCancel(stats.CancelSent)
	case base.CancelUnanswered:
		p.Recorder.CountCancel(stats.CancelUnanswered)
	}
}
