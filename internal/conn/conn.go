package conn

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/stats"
)

// Conn is the logical connection that database/sql holds. When database/sql governs it has one physical connection for life. When the
// driver governs it has one from checkout to check-in, and is kept without one in between.
type Conn struct {
	shape shape // see withShape
	pool  *Pool // that lends it its physical connection: home, or home's for reads
	life  life
	phys  *physical // only to be touched by who has begun a call, or begins or ends the checkout

	home     *Pool        // that it was made for
	checkout uint64       // counts the checkouts of a governed pool's connection
	since    int64        // the socket's writes when it began, where there is a pool for reads
	closing  stats.Closed // why it is going to be closed; governed by database/sql
	away     bool         // it has exchanged its physical connection for one of the pool for reads, until the transaction ends
	raw      bool         // arguments have passed CheckNamedValue unchecked, see there
	stale    bool         // a statement was closed while it was lent, and is still there: nobody is to use it any more
	open     int32        // statements that database/sql hasn't closed

	tx    Tx   // the transaction in progress: there is one at most
	stmt0 Stmt // the first statement: most connections have one at most
}

// quick begins a call that has nothing to see to first, nor at its end; nil: enter it. Nobody else looks at such a call, its context needs no
// watch, the last one has left nothing, and it is in no transaction of which more has to be known than the base tells.
func (c *Conn) quick() *physical {
	if !c.life.held() || c.tx.attempt != nil {
		return nil
	}
	ph := c.phys
	if !ph.quiet || ph.cancels.Pending() != nil || ph.cancels.Shown() || ph.syncWait.Load() || ph.tx == sqltext.TxReadOnly {
		return nil
	}
	ph.gaveRows = false
	return ph
}

// enter begins a call, and makes the checkout that a parked connection still lacks. The context is the call's.
func (c *Conn) enter(ctx context.Context) (*physical, error) {
	for !c.life.begin() {
		parked, err := c.life.obstacle(ctx)
		if parked {
			err = c.checkOut(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	ph := c.phys
	ph.doneReading()
	// Of rows that are still open the request is under way until they are closed.
	if ph.cancels.Pending() != nil && !ph.base.Busy() {
		if err := ph.settle(ctx); err != nil {
			c.leave()
			return nil, err
		}
	}
	ph.cancels.Show(false)
	ph.gaveRows = false
	if ph.syncWait.Load() {
		ph.syncWait.Store(false) // it came while the rows of the last call were read: too late to tell
	}
	if !ph.obeys && ctx.Err() != nil { // lib/pq would send the call all the same
		c.leave()
		return nil, ctx.Err()
	}
	return ph, nil
}

// done ends a call, and what watched its context.
func (c *Conn) done(watch *contextWatch) {
	watch.stop()
	c.leave()
}

// leave ends a call.
func (c *Conn) leave() {
	if c.life.shared {
		c.phys.use.paused(c.phys.sock)
	}
	c.life.end()
}

// checkOut makes the checkout that a connection lacks that sql.DB's opener has opened, that nobody has used yet, or that was lent
// when database/sql handed it out.
func (c *Conn) checkOut(ctx context.Context) error {
	ph, at := c.phys, time.Duration(0)
	if c.pool.governed {
		var err error
		c.pool = c.home.poolFor(ctx)
		if ph, at, err = c.pool.checkout(ctx); err != nil {
			return err
		}
		c.take(ph)
	} else {
		if !c.life.beginParked() {
			return nil
		}
		at = clock.Now()
		if ph.used && !c.ready(ctx, at) { // ResetSession found it lent
			return driver.ErrBadConn
		}
		ph.counts.CheckedOut()
	}
	ph.lentTo(c, at)
	c.pool.event(ctx, "checkout", ph)
	ph.track(ctx)
	c.life.hold()
	return nil
}

// take gives a governed pool's connection to c.
func (c *Conn) take(ph *physical) {
	c.phys = ph
	c.checkout++
	if c.pool.reads != nil {
		c.since = ph.base.Mark()
	}
}

// ResetSession is the checkout of a connection that database/sql has kept. database/sql listens to ErrBadConn only.
func (c *Conn) ResetSession(ctx context.Context) (err error) {
	var ph *physical
	var at time.Duration
	if !c.pool.governed && c.life.unpark(ctx) {
		ph, at = c.phys, clock.Now()
		if !c.ready(ctx, at) {
			return driver.ErrBadConn
		}
		ph.counts.CheckedOut()
	} else if ph, at, err = c.acquire(ctx); ph == nil {
		return err
	}
	ph.lentTo(c, at)
	c.pool.event(ctx, "checkout", ph)
	ph.track(ctx)
	c.life.hold()
	return nil
}

// acquire gets another physical connection for one that was kept without; nil without an error: the first call makes the checkout.
// database/sql holds the connection's lock meanwhile, for which the Close of a sql.Stmt that was prepared on it waits, and that may be called by
// who has the connection that is waited for. So with such a statement database/sql is sent on to Connect, to wait there without the lock; but not
// with SetMaxOpenConns in force, where it may not come there: it has waited for a connection then, or its opener has called.
func (c *Conn) acquire(ctx context.Context) (ph *physical, at time.Duration, err error) {
	if !c.life.isEmpty() {
		if c.life.gone() {
			return nil, 0, driver.ErrBadConn
		}
		return nil, 0, nil
	}
	c.pool = c.home.poolFor(ctx)
	if c.open > 0 && !c.home.opener.seen() {
		var ok bool
		if ph, at, ok = c.pool.tryCheckout(ctx); !ok && !waitedFor(3) { // runtime.Callers, grabber and that
			return nil, 0, driver.ErrBadConn
		}
	}
	if ph == nil {
		ph, at, err = c.pool.checkout(ctx)
	}
	switch {
	case err == nil:
		c.take(ph)
		return ph, at, nil
	case err == ctx.Err():
		err = driver.ErrBadConn // database/sql looks at the context before it tries again
	default:
		c.life.fail(err) // for whoever doesn't heed what follows
		err = &refusal{err}
	}
	return nil, 0, err
}

// refusal is a ResetSession's error when the checkout has failed. database/sql heeds none but driver.ErrBadConn, and then makes the checkout
// again with its next connection. But it asks twice, by errors.Is: DB.conn, whether to close the connection, and DB.retry, whether to try
// again. Only the first is told yes, so that the error itself comes to the caller.
type refusal struct{ error }

func (r *refusal) Is(target error) bool {
	if target != driver.ErrBadConn {
		return false
	}
	var pcs [3]uintptr // errors.is, errors.Is, and who has called that; not runtime.Callers, findCaller and this
	return findCaller(3, pcs[:], callerGrab) == callerGrab
}

func (r *refusal) Unwrap() error { return r.error }

// ready makes a connection that database/sql has kept fit for its next user. One that can't be is parked again, and
// database/sql has to close it.
func (c *Conn) ready(ctx context.Context, at time.Duration) bool {
	var err error = unfitError(stats.ClosedByCaller)
	if !c.stale {
		err = c.pool.ready(ctx, c.phys, at)
	}
	if err == nil {
		return true
	}
	c.closing = stats.ClosedBroken
	if why, unfit := err.(unfitError); unfit {
		c.closing = stats.Closed(why)
	}
	c.life.park()
	return false
}

// IsValid is database/sql's question at check-in whether it may keep the connection. It never blocks.
func (c *Conn) IsValid() bool {
	if c.pool.governed {
		return c.release()
	}
	at := clock.Now()
	ph := c.phys
	if c.life.begin() {
		c.pool.checkIn(ph, at)
	} else if !c.life.beginParked() {
		return c.life.lent() // nobody has used it
	}
	why, kept := c.pool.keeps(ph, at)
	c.closing = why
	c.life.park()
	return kept
}

// release gives the physical connection of a governed pool back, and lets database/sql keep this one. A session that isn't to be used
// again stays, to be closed with it.
func (c *Conn) release() (kept bool) {
	if !c.life.begin() {
		c.raw = false
		return c.life.endUnused()
	}
	ph, at := c.phys, clock.Now()
	if _, kept := c.pool.keeps(ph, at); !kept {
		c.life.end()
		return false
	}
	c.phys, c.raw = nil, false
	c.life.empty()
	c.pool.release(ph, at)
	return true
}

// Close ends the checkout, and the physical connection with it.
func (c *Conn) Close() error {
	switch was := c.life.close(); was {
	case lifeHeld, lifeParked:
		c.end(was == lifeHeld)
	case lifeGone:
		if c.phys != nil && c.life.wasReclaimed() && !c.phys.base.Known() {
			return c.phys.base.Raw().Close() // its socket couldn't be closed from outside
		}
	}
	return nil
}

func (c *Conn) end(held bool) {
	switch {
	case c.phys == nil:
	case c.pool.governed:
		c.pool.discard(c.phys)
	default:
		if held {
			c.pool.checkIn(c.phys, clock.Now())
			c.closing = c.phys.whyUnsound()
		} else if c.closing == stats.ClosedIdle {
			c.pool.closedIdle(c.phys)
		}
		c.pool.end(c.phys, c.closing, nil)
	}
}

// Base is the base driver's connection, or says why there is none: see Unwrap. The context is for the checkout, where that is still to be
// made.
func (c *Conn) Base(ctx context.Context) (driver.Conn, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	ph.cancels.Show(true)
	return ph.base.Raw(), nil
}
