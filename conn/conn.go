package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/stats"
)

// Conn is the logical connection that database/sql holds. When the driver governs there is one for each checkout, and
// it is never used again: whoever keeps it beyond its time (sql.Conn.Raw, a sql.Stmt closed late) finds that it owns
// nothing any more. When database/sql governs it lives as long as its physical connection.
type Conn struct {
	pool *Pool
	phys *physical // only to be touched by who has moved state to connBusy, or ends the checkout

	// state says what the connection may be used for. database/sql serialises its calls; a reclaim, which comes from
	// elsewhere, moves it from connHeld to connReclaim for a moment, and on to connGone or back.
	state atomic.Int32

	keep    bool         // IsValid was asked, so database/sql would keep a sound session; governed by the driver
	closing stats.Closed // why it is going to be closed; governed by database/sql
	raw     bool         // arguments have passed CheckNamedValue unchecked, see there
	stale   bool         // a statement was closed while it was lent, and is still there: nobody is to use it any more

	lent atomic.Pointer[chan struct{}] // closed when it is back from who borrowed it, nil if nobody has

	reclaimed error // what a call gets when the checkout was taken back; written before state is connGone

	tx    Tx   // the transaction in progress: there is one at most
	stmt0 Stmt // the first statement: most checkouts have one at most

	self itself // see shaped
}

// States of a Conn.
const (
	connParked  int32 = iota // not checked out: not yet, or in database/sql's free list, or from its opener
	connHeld                 // checked out
	connBusy                 // checked out, a call is in progress
	connReclaim              // Reclaim is looking at it
	connLent                 // parked, and lent to a LostError's Resolve
	connGone                 // closed, or reclaimed
)

var errBusy = errors.New("managedpg: connection used by two goroutines at once")

// enter begins a call, and makes the checkout that a parked connection still lacks. The context is the call's.
func (c *Conn) enter(ctx context.Context) (*physical, error) {
	for !c.own() {
		switch c.state.Load() {
		case connParked:
			if err := c.bind(ctx); err != nil {
				return nil, err
			}
		case connBusy:
			return nil, errBusy
		case connLent:
			if err := c.returned(ctx); err != nil {
				return nil, err
			}
		case connGone:
			if c.reclaimed != nil {
				return nil, c.reclaimed
			}
			return nil, driver.ErrBadConn
		}
	}
	c.phys.doneReading()
	if c.phys.pendingCancel() != nil {
		if err := c.phys.settle(ctx); err != nil {
			c.leave()
			return nil, err
		}
	}
	c.phys.gaveRows = false
	if reason := c.phys.condemned.Load(); reason != nil {
		c.phys.kill(*reason)
	}
	if c.phys.syncWait.Load() {
		c.phys.syncWait.Store(false) // it came while the rows of the last call were read: too late to tell
	}
	if c.phys.endpoint.deaf && ctx.Err() != nil { // lib/pq would send the call all the same
		c.leave()
		return nil, ctx.Err()
	}
	return c.phys, nil
}

// own makes sure that nobody else touches the connection until leave, if it is checked out. Only a reclaim would, so where
// none can come nothing needs to be said.
func (c *Conn) own() bool {
	if c.pool.reclaims {
		return c.move(connHeld, connBusy)
	}
	return c.state.Load() == connHeld
}

// move changes the state, if it is the given one once a reclaim has had its look.
func (c *Conn) move(from, to int32) bool {
	for {
		switch was := c.state.Load(); was {
		case from:
			if c.state.CompareAndSwap(from, to) {
				return true
			}
		case connReclaim:
			runtime.Gosched()
		default:
			return false
		}
	}
}

// take moves a parked connection to another state, once it is back from who borrowed it, if that is before ctx ends.
func (c *Conn) take(ctx context.Context, to int32) bool {
	for !c.move(connParked, to) {
		switch c.state.Load() {
		case connParked:
		case connLent:
			if c.returned(ctx) != nil {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// leave ends a call.
func (c *Conn) leave() {
	if !c.pool.reclaims {
		return
	}
	c.phys.use.paused(c.phys.sock)
	c.state.Store(connHeld)
}

// bind makes the checkout that a connection lacks that sql.DB's opener has opened, that nobody has used yet, or that was lent
// when database/sql handed it out.
func (c *Conn) bind(ctx context.Context) error {
	ph, at := c.phys, time.Duration(0)
	if c.pool.governed {
		var err error
		if ph, at, err = c.pool.checkout(ctx); err != nil {
			return err
		}
	} else {
		if !c.move(connParked, connBusy) {
			return nil
		}
		at = now()
		if ph.used && !c.ready(ctx, at) { // ResetSession found it lent
			return driver.ErrBadConn
		}
		c.pool.Recorder.CheckedOut()
	}
	c.pool.lend(ctx, c, ph, at)
	ph.track(ctx)
	c.state.Store(connHeld)
	return nil
}

// ResetSession is the checkout of a connection that database/sql has kept. database/sql listens to ErrBadConn only.
func (c *Conn) ResetSession(ctx context.Context) error {
	if c.pool.governed {
		return nil
	}
	working := connHeld
	if c.pool.reclaims {
		working = connBusy
	}
	if !c.take(ctx, working) {
		if c.state.Load() == connGone {
			return driver.ErrBadConn
		}
		return nil // the first call makes the checkout
	}
	at := now()
	ph := c.phys
	if !c.ready(ctx, at) {
		return driver.ErrBadConn
	}
	c.pool.Recorder.CheckedOut()
	c.pool.lend(ctx, c, ph, at)
	ph.track(ctx)
	c.leave()
	return nil
}

// ready makes a connection that database/sql has kept fit for its next user. One that can't be is parked again, and
// database/sql has to close it.
func (c *Conn) ready(ctx context.Context, at time.Duration) bool {
	if why, unfit := c.pool.unfit(c.phys, at); unfit && why != stats.ClosedRecycle {
		c.closing = why
	} else if c.stale {
		c.closing = stats.ClosedByCaller
	} else if err := c.phys.ready(ctx, c.pool, at); err != nil {
		c.pool.callFailed(ctx, c.phys, err)
		c.closing = stats.ClosedBroken
	} else {
		return true
	}
	c.state.Store(connParked)
	return false
}

// IsValid is database/sql's question at check-in whether it may keep the connection. It never blocks.
func (c *Conn) IsValid() bool {
	if c.pool.governed {
		c.keep = true // Close looks at the session
		return false
	}
	at := now()
	ph := c.phys
	if c.own() {
		c.pool.takeBack(ph, at)
	} else {
		for !c.move(connParked, connBusy) {
			if state := c.state.Load(); state != connParked {
				return state == connLent // nobody has used it
			}
		}
	}
	defer c.state.Store(connParked)
	why, unfit := c.pool.unfit(ph, at)
	switch {
	case unfit:
		c.closing = why
	case !ph.sound():
		c.closing = ph.whyUnsound()
	default:
		c.closing = stats.ClosedIdle
		return true
	}
	return false
}

// Close ends the checkout, and the physical connection with it when database/sql governs or the session isn't sound.
func (c *Conn) Close() error {
	held := c.move(connHeld, connGone)
	for ; !held && !c.move(connParked, connGone); held = c.move(connHeld, connGone) {
		if c.state.CompareAndSwap(connLent, connGone) {
			return nil // it is ended when it comes back
		}
		if c.state.Load() != connGone {
			continue
		}
		if c.reclaimed != nil && c.phys.sock == nil && c.phys.pgx == nil {
			return c.phys.base.Close() // its socket couldn't be closed from outside
		}
		return nil
	}
	ph := c.phys
	switch {
	case ph == nil:
	case c.pool.governed:
		c.pool.giveBack(ph, c.keep && ph.sound())
	default:
		if held {
			c.pool.takeBack(ph, now())
			c.closing = ph.whyUnsound()
		}
		c.pool.end(ph, c.closing, nil)
	}
	return nil
}

// exec is ExecContext of those bases that have it.
func (c *Conn) exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	if c.raw {
		if args, err = c.check(ph, args, ph.features.canExec()); err != nil {
			return nil, err
		}
	}
	baseCtx, watch := ph.watch(ctx, closeLimit)
	defer watch.stop()
	before := ph.mark()
	res, err := ph.features.exec(baseCtx, query, args)
	if err != nil || ph.syncWait.Load() {
		if err = c.verdict(ctx, ph, before, statement, query, err); err != nil {
			return nil, err
		}
	}
	c.ran(ctx, ph, query)
	return res, nil
}

// query is QueryContext of those bases that have it.
func (c *Conn) query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	if c.raw {
		if args, err = c.check(ph, args, ph.features.canQuery()); err != nil {
			return nil, err
		}
	}
	before := ph.mark()
	baseCtx, watch := ph.watch(ctx, closeLimit)
	rowsCtx, cancel := ph.cancellable(baseCtx, c.pool)
	rows, err := ph.features.query(rowsCtx, query, args)
	if err != nil || ph.syncWait.Load() {
		if err = c.verdict(ctx, ph, before, statement, query, err); err != nil {
			discard(rows)
			if cancel != nil {
				cancel(nil)
			}
			watch.stop()
			return nil, err
		}
	}
	watch.keepFor(ph)
	ph.hasRows(cancel)
	c.ran(ctx, ph, query)
	return rows, nil
}

// discard closes the rows of a call that is told an error.
func discard(rows driver.Rows) {
	if rows != nil {
		_ = rows.Close()
	}
}

// PrepareContext prepares a statement, or finds it among those that the physical connection has kept.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	cached, err := c.prepare(ctx, ph, query)
	if err != nil {
		return nil, err
	}
	s := &c.stmt0
	if s.conn != nil {
		s = new(Stmt)
	}
	*s = Stmt{conn: c, cached: cached, generation: ph.generation}
	//lint:ignore SA1019 database/sql still calls it
	if _, ok := cached.base.(driver.ColumnConverter); ok {
		return convertingStmt{s}, nil
	}
	return s, nil
}

func (c *Conn) prepare(ctx context.Context, ph *physical, query string) (*cachedStmt, error) {
	var version uint64
	if c.pool.keepsStatements() {
		version = c.pool.preparing.begin(query)
		if cached := ph.stmts.get(query, version); cached != nil {
			return cached, nil
		}
	}
	baseCtx, watch := ph.watch(ctx, closeLimit)
	defer watch.stop()
	before := ph.mark()
	if ph.stmts == nil && c.pool.keepsStatements() {
		ph.stmts = newStmtCache(c.pool.opts.StatementCache)
	}
	base, err := ph.prepare(baseCtx, query)
	if err != nil {
		return nil, c.verdict(ctx, ph, before, harmless, query, err)
	}
	return ph.stmts.add(query, version, base, ph.sock), nil
}

// Prepare is for callers without a context; database/sql isn't one.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// BeginTx begins a transaction.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	if ph.busy() {
		return nil, errRowsOpen // pgx would close the connection
	}
	baseCtx, watch := ph.watch(ctx, closeLimit)
	defer watch.stop()
	before := ph.mark()
	attempt := attemptOf(ctx)
	if attempt.resolves() && !opts.ReadOnly {
		if err := ph.know(ctx); err != nil {
			return nil, c.verdict(ctx, ph, before, harmless, "", err)
		}
	}
	kept := &keptContext{baseCtx}
	base, err := ph.features.begin(kept, ph.base, opts)
	if err != nil {
		return nil, c.verdict(ctx, ph, before, harmless, "", err)
	}
	ph.tx = sqltext.TxReadWrite
	if opts.ReadOnly {
		ph.tx = sqltext.TxReadOnly
	}
	c.tx = Tx{conn: c, ctx: ctx, kept: kept, base: base, attempt: attempt}
	attempt.begun()
	return &c.tx, nil
}

// Begin is for callers without a context; database/sql isn't one.
func (c *Conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

// Ping asks the server, if the base driver can.
func (c *Conn) Ping(ctx context.Context) error {
	ph, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer c.leave()
	if ph.features.pinger == nil {
		return nil
	}
	if ph.busy() {
		return errRowsOpen // pgx would close the connection
	}
	baseCtx, watch := ph.watch(ctx, closeLimit)
	defer watch.stop()
	before := ph.mark()
	if err := ph.features.pinger.Ping(baseCtx); err != nil {
		return c.verdict(ctx, ph, before, harmless, "", err)
	}
	return nil
}

// CheckNamedValue asks the base driver. database/sql gives no context with it, so a connection that has yet to be checked
// out lets everything through and checks when the call is there.
func (c *Conn) CheckNamedValue(v *driver.NamedValue) error {
	if c.state.Load() == connParked && c.phys == nil {
		c.raw = true
		return nil
	}
	c.raw = false
	if c.phys == nil || c.phys.features.checker == nil {
		return driver.ErrSkip
	}
	return c.phys.features.checker.CheckNamedValue(v)
}

// check does what database/sql does with arguments (driverArgsConnLocked in its convert.go) for those that
// CheckNamedValue had to let through. A base that can't run the text without preparing it is not asked: its statement is,
// then.
func (c *Conn) check(ph *physical, args []driver.NamedValue, can bool) ([]driver.NamedValue, error) {
	c.raw = false
	if !can {
		return nil, driver.ErrSkip
	}
	checked := args[:0]
	for i := range args {
		v := args[i]
		v.Ordinal = len(checked) + 1
		err := driver.ErrSkip
		if ph.features.checker != nil {
			err = ph.features.checker.CheckNamedValue(&v)
		}
		if err == driver.ErrSkip {
			v.Value, err = driver.DefaultParameterConverter.ConvertValue(v.Value)
		}
		switch err {
		case nil:
			checked = append(checked, v)
		case driver.ErrRemoveArgument:
		default:
			name := fmt.Sprintf("$%d", v.Ordinal)
			if v.Name != "" {
				name = fmt.Sprintf("with name %q", v.Name)
			}
			return nil, fmt.Errorf("sql: converting argument %s type: %w", name, err)
		}
	}
	return checked, nil
}

// Base is the base driver's connection, nil if the logical connection no longer owns one.
func (c *Conn) Base() driver.Conn {
	ph, err := c.enter(context.Background())
	if err != nil {
		return nil
	}
	defer c.leave()
	return ph.base
}

// shaped gives the connection just those optional interfaces whose absence database/sql acts upon. It answers with a pointer
// into c, so that it allocates nothing and what is promoted through it takes no frame of the stack, which leak detection
// pays for.
func (c *Conn) shaped(canExec, canQuery bool) driver.Conn {
	c.self.Conn = c
	switch {
	case canExec && canQuery:
		return (*fullConn)(&c.self)
	case canExec:
		return (*execConn)(&c.self)
	case canQuery:
		return (*queryConn)(&c.self)
	default:
		return c
	}
}

type (
	itself    struct{ *Conn }
	fullConn  itself
	execConn  itself
	queryConn itself
)

func (c *fullConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.exec(ctx, query, args)
}

func (c *fullConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.query(ctx, query, args)
}

func (c *execConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.exec(ctx, query, args)
}

func (c *queryConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.query(ctx, query, args)
}

var (
	_ driver.Conn               = (*Conn)(nil)
	_ driver.ConnPrepareContext = (*Conn)(nil)
	_ driver.ConnBeginTx        = (*Conn)(nil)
	_ driver.Pinger             = (*Conn)(nil)
	_ driver.SessionResetter    = (*Conn)(nil)
	_ driver.Validator          = (*Conn)(nil)
	_ driver.NamedValueChecker  = (*Conn)(nil)
	_ driver.ExecerContext      = (*fullConn)(nil)
	_ driver.QueryerContext     = (*fullConn)(nil)
)
