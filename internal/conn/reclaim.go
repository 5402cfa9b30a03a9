package conn

import (
	"context"
	"errors"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/wire"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

var _ leak.Holder = (*physical)(nil)

// Reclaim takes a checkout back from who holds it. It returns false if the checkout has ended meanwhile or its holder is at work: slow isn't abandoned.
//
// The holder keeps a logical connection that owns nothing; its next call gets the ReclaimedError, as do Rows that are
// read further. The permit is free once the socket is closed, which happens from here, not when the holder returns.
func (ph *physical) Reclaim(checkout uint64, r leak.Report) bool {
	c := ph.user.Load()
	if c == nil || !c.life.reclaim() {
		return false
	}
	if c.phys != ph || ph.checkout != checkout || ph.atWork(c.pool.opts.ReclaimAfter) {
		c.life.spare()
		return false
	}
	reason := &ReclaimedError{Report: r}
	ph.sock.Refuse(reason)
	if ph.cancelRows != nil {
		ph.cancelRows(reason)
	}
	c.life.reclaimed(reason)
	c.pool.checkIn(ph, clock.Now())
	c.pool.forget(ph)
	if c.pool.governed {
		c.pool.lending.Taken()
	}
	go ph.base.Abandon(func() {
		ph.counts.Closed(stats.ClosedReclaimed)
		if c.pool.governed {
			c.pool.lending.Gone()
		}
	})
	return true
}

// use is how Reclaim tells a holder at work from one that has abandoned the connection, although no call is in progress:
// it reads rows, which aren't ours, or uses what sql.Conn.Raw showed it. The socket is ours, though.
type use struct {
	heard     time.Duration // the socket's when the last call returned
	returning bool          // the call in progress has returned rows
	rows      bool          // the last one had
}

// paused is called at the end of a call, and at the checkout.
func (u *use) paused(s *wire.Socket) {
	u.heard = s.Heard()
	u.rows, u.returning = u.returning, false
}

// atWork says whether somebody waits at the socket now, or has heard from the server, within the time that makes a holder suspicious,
// since the last call returned. Of a call that returned rows its own answer counts too: they have yet to be read.
func (ph *physical) atWork(quiet time.Duration) bool {
	u, s := &ph.use, ph.sock
	waits, known := s.CallWaits()
	if !known {
		waits = s.Waiting() && u.rows
	}
	heard := s.Heard()
	return waits || (u.rows || heard > u.heard) && clock.Now()-heard < quiet
}

// watchRows is watch for a call that returns rows. What it returns last ends them, and is nil where Reclaim doesn't want to: lib/pq sends a
// cancel request when the context of a call ends, and has no other way to be asked for one.
func (ph *physical) watchRows(ctx context.Context) (context.Context, *contextWatch, context.CancelCauseFunc) {
	if ph.obeys {
		return ctx, nil, nil
	}
	ctx, watch := ph.watchBoth(ctx, wire.CloseLimit)
	if !ph.pool.shared() {
		return ctx, watch, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return reclaimable{ctx}, watch, cancel
}

// hasRows is called with what watchRows returned when the call has returned rows, or an error: what ended the rows before, which are done
// with, is no longer needed.
func (ph *physical) hasRows(watch *contextWatch, cancel context.CancelCauseFunc, err error) {
	ph.use.returning, ph.gaveRows = err == nil, err == nil
	switch {
	case ph.obeys: // there is neither
	case err == nil:
		watch.keepFor(ph)
		ph.doneWithRows()
		ph.cancelRows = cancel
	default:
		watch.stop()
		if cancel != nil {
			cancel(nil)
		}
	}
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
