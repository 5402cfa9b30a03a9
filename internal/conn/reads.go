package conn

import (
	"context"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// A governed pool may have a second one beside it, for reads: its sessions are read-only, and lead to standbys where there are some.
// A checkout goes there when its context says that it only reads, and so does a transaction that is begun as READ ONLY.

type readsKey struct{}

// ReadOnly marks what is done with the context as reads.
func ReadOnly(ctx context.Context) context.Context { return context.WithValue(ctx, readsKey{}, true) }

// ReadBy has reads go to the other pool. It is called before the pool is used.
func (p *Pool) ReadBy(reads *Pool) { p.reads, reads.texts = reads, p.texts }

// poolFor is the pool for a checkout.
func (p *Pool) poolFor(ctx context.Context) *Pool {
	if p.reads != nil && ctx.Value(readsKey{}) != nil {
		return p.reads
	}
	return p
}

const setReadOnly = "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"

// makeReadOnly lets nothing be written in the session, whatever its server is.
func (p *Pool) makeReadOnly(ctx context.Context, ph *physical) error {
	if !p.opts.ReadOnly {
		return nil
	}
	return ph.features.Run(ctx, setReadOnly)
}

// readsElsewhere says that a transaction that is READ ONLY is to begin on a connection of the other pool. One that the session has
// been used for already since its checkout stays, since it may go by what was done there. So does one that would have to wait for others'
// connections while a statement is open on the handle: see acquire.
func (c *Conn) readsElsewhere(ph *physical) bool {
	return c.pool.reads != nil && ph.base.Counts() && ph.base.Mark() == c.since &&
		(c.open == 0 || c.pool.reads.lending.Room())
}

// goReading exchanges the physical connection for one of the pool for reads. The call that asks for it has ended. An error leaves the
// checkout without a connection. One that Reclaim has taken meanwhile stays as that has left it: the next call is told.
func (c *Conn) goReading(ctx context.Context) error {
	if !c.releaseEarly() {
		return nil
	}
	c.pool = c.pool.reads
	ph, at, err := c.pool.checkout(ctx)
	if err != nil {
		c.life.fail(err)
		return err
	}
	c.away = true
	c.take(ph)
	ph.lentTo(c, at)
	c.pool.event(ctx, "checkout", ph)
	ph.track(ctx)
	c.life.hold()
	return nil
}

// comeBack gives the connection for reads back after its transaction. What follows in the same checkout makes another one.
func (c *Conn) comeBack() {
	c.away = false
	if c.releaseEarly() {
		c.life.park()
	}
}

// releaseEarly gives the physical connection to its pool before the checkout ends, unless Reclaim has it.
func (c *Conn) releaseEarly() bool {
	if !c.life.begin() {
		return false
	}
	ph, at := c.phys, clock.Now()
	_, kept := c.pool.keeps(ph, at)
	c.phys, c.raw = nil, false
	c.life.empty()
	if kept {
		c.pool.release(ph, at)
	} else {
		c.pool.discard(ph)
	}
	return true
}

const (
	// conflictRetries is how often a read is run again that a standby ended because its replay needed what the read was at.
	conflictRetries = 3
	// conflictPause is the wait before the first time; it doubles. The server signals such a session every 5 ms (pg_usleep in its
	// standby.c) until the conflict is over, and what the session runs next meanwhile is hit as well.
	conflictPause = 10 * time.Millisecond
)

// runAgain says that a read, which has been run again so many times, met a recovery conflict and is to be run once more. It has waited for
// the conflict to be over then.
func (c *Conn) runAgain(ctx context.Context, ph *physical, times int, err error) bool {
	if times == conflictRetries || !c.conflicted(ctx, ph, err) {
		return false
	}
	pause := time.NewTimer(conflictPause << times)
	defer pause.Stop()
	select {
	case <-pause.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// conflicted says that a read met a recovery conflict, outside a transaction and before it returned anything. A standby raises 40001 for
// nothing else there, as it has no serializable transactions, and 40P01 hardly; 57014 it says of other things too.
func (c *Conn) conflicted(ctx context.Context, ph *physical, err error) bool {
	if !c.pool.opts.ReadOnly || ctx.Err() != nil || !ph.outsideTx() || base.Severity(err) != "ERROR" || ph.server.Standby != base.Yes {
		return false
	}
	switch sqlstate.Of(err) {
	case sqlstate.SerializationFailure, sqlstate.DeadlockDetected:
		return true
	case sqlstate.QueryCanceled:
		return strings.Contains(err.Error(), "conflict with recovery")
	default:
		return false
	}
}
