package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/managedpg/managedpg/internal/pool"
	"github.com/managedpg/managedpg/internal/wire"
	"github.com/managedpg/managedpg/stats"
)

// justUsed is for how short a time a connection may have been free for a pre-ping to do without its look at the socket,
// which is a system call: no longer than the call's own bytes take to the server, during which it can die as well. A
// connection of the pool that was lost meanwhile ends that trust.
const justUsed = 20 * time.Microsecond

// idlePing is how long a connection may have been free before a pre-ping asks the server instead of the socket.
const idlePing = time.Second

// ready makes a free connection fit for its next user. Any error means that it is not to be used: an unfitError that it isn't wanted any more,
// others that it doesn't work. Nothing of the user's has been sent on it.
func (p *Pool) ready(ctx context.Context, ph *physical, at time.Duration) error {
	if !ph.asLeft(p, at) || !ph.asOpened(p, at) || !ph.stmts.isTidy(p.texts) {
		return p.readySlow(ctx, ph, at)
	}
	err := ph.resetBase(ctx) // most are as they were left
	if err != nil {
		p.callFailed(ctx, ph, err)
	}
	return err
}

// readySlow is ready where something has to be looked at.
func (p *Pool) readySlow(ctx context.Context, ph *physical, at time.Duration) error {
	if why, unfit := p.unfit(ph, at); unfit && (p.governed || why != stats.ClosedRecycle) {
		return unfitError(why)
	}
	err := ph.makeReady(ctx, p, at)
	if err != nil {
		p.callFailed(ctx, ph, err)
	}
	return err
}

// asLeft says that a free connection still works, as far as one can know without a look at it: its last user has left it so, not longer ago
// than is trusted, and nothing has come up since.
func (ph *physical) asLeft(p *Pool, at time.Duration) bool {
	return at-ph.freeSince < p.trust && p.lastLoss.Load() < int64(ph.freeSince) && !ph.signals.Hung.Load() &&
		ph.cancels.Pending() == nil && !ph.sock.IsBroken()
}

// makeReady looks whether a connection still works, and resets its session: pre-ping, the base's own reset, pool_reset.
func (ph *physical) makeReady(ctx context.Context, p *Pool, at time.Duration) error {
	// Else the caller's context has ended, which costs no connection: whoever begins a call on it settles it first.
	settled := ph.cancels.Pending() == nil || ph.settle(ctx) == nil
	if settled && p.opts.PrePing {
		if err := ph.prePing(ctx, p, at); err != nil {
			return err
		}
	}
	if err := ph.resetBase(ctx); err != nil {
		return err
	}
	if p.opts.DiscardAll && ph.used {
		if !settled {
			return ctx.Err() // it can't be reset now, and nobody is to have it so
		}
		if err := ph.discardAll(ctx, p); err != nil {
			return err
		}
	} else if settled {
		ph.stmts.tidy(p.texts.freed.Load())
	}
	if ph.lost() {
		return driver.ErrBadConn
	}
	return nil
}

// resetBase is the base's own reset. Of its error only ErrBadConn counts, as for database/sql.
func (ph *physical) resetBase(ctx context.Context) error {
	if r := ph.features.Resetter; r != nil {
		if err := r.ResetSession(ctx); err != nil && errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
	if ph.lost() { // by a hook of the user's, whatever that says
		return driver.ErrBadConn
	}
	return nil
}

// asOpened says that nothing has come up since the connection was opened that could make it unfit. It is inlined, and asked before Pool.unfit.
func (ph *physical) asOpened(p *Pool, at time.Duration) bool {
	return ph.drains == p.life.drains.Load() && ph.epoch == ph.signals.Epoch.Load() && at < ph.expires &&
		ph.signals.Surplus.Load() <= 0 && !ph.surplus.Load()
}

// prePing finds a connection that died while it was free.
func (ph *physical) prePing(ctx context.Context, p *Pool, at time.Duration) error {
	hung := ph.signals.Hung.Load()
	switch seen := ph.sock.Peek(); {
	case seen == wire.PeekClosed:
		return driver.ErrBadConn
	case seen == wire.PeekUnread, hung, at-ph.freeSince > idlePing:
		pinger := ph.features.Pinger()
		if pinger == nil {
			return nil
		}
		limited, cancel := context.WithTimeout(ctx, p.opts.PingTimeout)
		defer cancel()
		limited, watch := ph.watch(limited, 0) // nothing can be lost
		defer watch.stop()
		err := pinger.Ping(limited)
		if err == nil && hung {
			ph.signals.Hung.Store(false) // where nobody probes, nothing else may tell for long
		}
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			err = fmt.Errorf("%w: %w", pool.ErrSilent, err)
		}
		return err
	default:
		return nil
	}
}

// discardAll resets the whole session.
func (ph *physical) discardAll(ctx context.Context, p *Pool) error {
	ctx, watch := ph.watch(ctx, wire.CloseLimit)
	defer watch.stop()
	if err := ph.features.Run(ctx, "DISCARD ALL"); err != nil {
		return err
	}
	if err := ph.forgotten(ctx); err != nil {
		return err
	}
	if p.opts.OnConnect != nil {
		if err := p.onConnect(ctx, ph); err != nil {
			return err
		}
	}
	return p.makeReadOnly(ctx, ph)
}

// forgotten is to be called when the server has forgotten the session's prepared statements: it makes the base's cache and
// ours forget them too, and statements in use prepare themselves again.
func (ph *physical) forgotten(ctx context.Context) error {
	ph.generation++
	ph.stmts.clear()
	return ph.base.ForgetStatements(ctx)
}
