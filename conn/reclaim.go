package conn

import (
	"context"
	"errors"
	"time"

	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Reclaim takes a checkout back from who holds it: for leak.Options.Reclaim, whose holder is what lend left with the
// tracker. It returns false if the checkout has ended meanwhile or its holder is at work: slow isn't abandoned.
//
// The holder keeps a logical connection that owns nothing; its next call gets the ReclaimedError, as do Rows that are
// read further. The permit is free once the socket is closed, which happens from here, not when the holder returns.
func Reclaim(holder any, checkout uint64, r leak.Report) bool {
	ph := holder.(*physical)
	c := ph.user.Load()
	if c == nil || !c.state.CompareAndSwap(connHeld, connReclaim) {
		return false
	}
	if ph.checkout != checkout || ph.atWork(c.pool.opts.ReclaimAfter) {
		c.state.Store(connHeld)
		return false
	}
	reason := &ReclaimedError{Report: r}
	c.reclaimed = reason
	if ph.sock != nil {
		ph.sock.refuse(reason)
	}
	if ph.cancelRows != nil {
		ph.cancelRows(reason)
	}
	c.state.Store(connGone)
	c.pool.takeBack(ph, now())
	c.pool.forget(ph)
	go ph.abandon(func() {
		c.pool.gone(stats.ClosedReclaimed)
		if c.pool.governed {
			c.pool.release()
		}
	})
	return true
}

// atWork says whether the holder does something with the connection although no call is in progress: reads rows, which
// aren't ours, or uses what sql.Conn.Raw showed it. The socket is ours, though: somebody waits at it now, or has heard from
// the server since the last call returned, and within the time that makes a holder suspicious.
func (ph *physical) atWork(quiet time.Duration) bool {
	if ph.sock == nil {
		return false
	}
	heard := ph.sock.heard.Load()
	return ph.sock.waiting.Load() > 0 || heard > ph.called && now()-time.Duration(heard) < quiet
}

// abandon ends a connection from outside; its base connection can't be told to close, as somebody may still use it. The
// server is asked to end what it is doing, which rows that were left open may keep it at: busy, it doesn't notice a
// closed socket. And it is waited for, so that its session is gone when then lets another one take its place.
func (ph *physical) abandon(then func()) {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	if ph.pgx != nil {
		_ = ph.pgx.Conn().PgConn().CancelRequest(ctx)
	}
	switch {
	case ph.sock != nil:
		ph.sock.whenClosed(then)
		ph.sock.hangUp(ctx)
		return
	case ph.pgx != nil:
		_ = ph.pgx.Conn().PgConn().Conn().Close()
	}
	then()
}

// cancellable is the context for a call that returns rows, and what ends them. lib/pq sends a cancel request when the
// context of a call ends, and has no other way to be asked for one.
func (ph *physical) cancellable(ctx context.Context, p *Pool) (context.Context, context.CancelCauseFunc) {
	if !ph.endpoint.deaf || p.opts.ReclaimAfter <= 0 || ph.slot == nil {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return reclaimable{ctx}, cancel
}

// hasRows is called when a call has returned rows: what ended the rows before, which are done with, is no longer needed.
func (ph *physical) hasRows(cancel context.CancelCauseFunc) {
	ph.doneWithRows()
	ph.cancelRows = cancel
}

func (ph *physical) doneWithRows() {
	if ph.cancelRows != nil {
		ph.cancelRows(nil)
		ph.cancelRows = nil
	}
}

// reclaimable is a context whose error, after a reclaim, is what the holder is to be told.
type reclaimable struct{ context.Context }

func (r reclaimable) Err() error {
	var reason *ReclaimedError
	if errors.As(context.Cause(r.Context), &reason) {
		return reason
	}
	return r.Context.Err()
}
