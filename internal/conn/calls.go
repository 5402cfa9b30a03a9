package conn

import (
	"context"
	"database/sql/driver"

	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/internal/wire"
)

// exec is ExecContext of those bases that have it.
func (c *Conn) exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	ph := c.quick()
	if ph == nil || c.raw {
		return c.execSlow(ctx, query, args)
	}
	before := ph.base.Mark()
	res, err := ph.features.Exec(ctx, query, args)
	if err == nil && ph.isOver(query) {
		return res, nil
	}
	again := func() (driver.Result, error) { return ph.features.Exec(ctx, query, args) }
	return returned(ctx, c, ph, before, query, nil, res, err, again)
}

// execSlow is exec where something has to be seen to.
func (c *Conn) execSlow(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	if c.raw {
		if args, err = c.check(ph, args, ph.features.CanExec()); err != nil {
			return nil, err
		}
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	defer watch.stop()
	before := ph.base.Mark()
	run := func() (driver.Result, error) { return ph.features.Exec(baseCtx, query, args) }
	res, err := run()
	return returned(ctx, c, ph, before, query, nil, res, err, run)
}

// query is QueryContext of those bases that have it.
func (c *Conn) query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	ph := c.quick()
	if ph == nil || c.raw {
		return c.querySlow(ctx, query, args)
	}
	before := ph.base.Mark()
	rows, err := ph.features.Query(ctx, query, args)
	if err != nil || !ph.isOver(query) {
		again := func() (driver.Rows, error) { return ph.features.Query(ctx, query, args) }
		if rows, err = returnedRows(ctx, c, ph, before, query, nil, rows, err, again); err != nil {
			return nil, err
		}
	}
	ph.gaveRows = true
	return rows, nil
}

// querySlow is query where something has to be seen to.
func (c *Conn) querySlow(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	if c.raw {
		if args, err = c.check(ph, args, ph.features.CanQuery()); err != nil {
			return nil, err
		}
	}
	before := ph.base.Mark()
	baseCtx, watch, cancel := ph.watchRows(ctx)
	run := func() (driver.Rows, error) { return ph.features.Query(baseCtx, query, args) }
	rows, err := run()
	rows, err = returnedRows(ctx, c, ph, before, query, nil, rows, err, run)
	ph.hasRows(watch, cancel, err)
	return rows, err
}

// returned is what becomes of a statement that the base has run: it is run again after a recovery conflict, its caller is told the verdict, and
// the session followed. A prepared one leaves the cache where the error may be one of what it was prepared for, as a column's type that was
// changed since.
func returned[T any](ctx context.Context, c *Conn, ph *physical, before int64, query string, prepared *cachedStmt,
	got T, err error, again func() (T, error),
) (T, error) {
	for n := 0; err != nil && c.runAgain(ctx, ph, n, err); n++ {
		got, err = again()
	}
	if err != nil || ph.syncWait.Load() {
		if prepared != nil && err != nil && !sqlstate.OfTheCall(sqlstate.Of(err)) {
			ph.stmts.evict(prepared)
		}
		if err = c.verdict(ctx, ph, before, statement, query, err); err != nil {
			return got, err
		}
	}
	c.follow(ctx, ph, query)
	return got, nil
}

// returnedRows is returned of rows. Those of a call that is told an error are closed.
func returnedRows(ctx context.Context, c *Conn, ph *physical, before int64, query string, prepared *cachedStmt,
	rows driver.Rows, err error, again func() (driver.Rows, error),
) (driver.Rows, error) {
	rows, err = returned(ctx, c, ph, before, query, prepared, rows, err, again)
	if err == nil {
		return rows, nil
	}
	if rows != nil {
		_ = rows.Close()
	}
	return nil, err
}

// PrepareContext prepares a statement, or finds it among those that the physical connection has kept.
func (c *Conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer c.leave()
	s := &c.stmt0
	if s.conn != nil {
		s = new(Stmt)
	}
	*s = Stmt{conn: c, query: query}
	if c.pool.governed {
		s.text, s.version = c.pool.texts.begin(query)
	}
	cached, err := c.prepare(ctx, ph, query, s.text, s.version)
	if err != nil {
		if s.text != nil {
			c.pool.texts.end(query, s.text, true)
		}
		*s = Stmt{}
		return nil, err
	}
	s.found(cached, ph)
	s.numInput = cached.base.NumInput()
	c.open++
	//lint:ignore SA1019 database/sql still calls it
	if _, ok := cached.base.(driver.ColumnConverter); ok {
		return convertingStmt{s}, nil
	}
	return s, nil
}

// prepare finds the base statement of a text, or has the base driver prepare it.
func (c *Conn) prepare(ctx context.Context, ph *physical, query string, t *text, version uint64) (*cachedStmt, error) {
	if t != nil && ph.stmts == nil {
		ph.stmts = newStmtCache(c.pool.keptStatements())
	}
	if cached := ph.stmts.get(query, version); cached != nil {
		return cached, nil
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	defer watch.stop()
	before := ph.base.Mark()
	st, err := ph.prepare(baseCtx, query)
	if err != nil {
		return nil, c.verdict(ctx, ph, before, harmless, query, err)
	}
	return ph.stmts.add(&cachedStmt{base: st, query: query, text: t, version: version, phys: ph}), nil
}

// Prepare is for callers without a context; database/sql isn't one.
func (c *Conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// BeginTx begins a transaction.
func (c *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	ph, attempt := c.quick(), attemptOf(ctx)
	if ph == nil || attempt != nil || opts.ReadOnly || c.pool.opts.ReadOnly {
		return c.beginSlow(ctx, opts, attempt)
	}
	return c.beginOn(ctx, ctx, ph, opts)
}

// beginSlow is BeginTx where something has to be seen to, of InTx's transactions, and of those that only read.
func (c *Conn) beginSlow(ctx context.Context, opts driver.TxOptions, attempt *Attempt) (driver.Tx, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	if opts.ReadOnly && c.readsElsewhere(ph) {
		c.leave()
		if err := c.goReading(ctx); err != nil {
			return nil, err
		}
		if ph, err = c.enter(ctx); err != nil {
			return nil, err
		}
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	defer c.done(watch)
	if c.pool.opts.ReadOnly && ph.features.CanBeginReadOnly() {
		opts.ReadOnly = true // else lib/pq would say READ WRITE, which overrides the session
	}
	if attempt.resolves() && !opts.ReadOnly && !ph.base.Busy() {
		before := ph.base.Mark()
		if ph.identity, err = resolve.Identify(ctx, ph.base, ph.identity); err != nil {
			return nil, c.verdict(ctx, ph, before, harmless, "", err)
		}
	}
	tx, err := c.beginOn(ctx, baseCtx, ph, opts)
	if err != nil {
		return nil, err
	}
	if watch != nil && watch.asks {
		ph.txCtx = ctx
	}
	if c.tx.attempt = attempt; attempt != nil {
		attempt.begun()
	}
	return tx, nil
}

// beginOn has the base begin a transaction.
func (c *Conn) beginOn(ctx, baseCtx context.Context, ph *physical, opts driver.TxOptions) (driver.Tx, error) {
	if ph.base.Busy() {
		return nil, errRowsOpen // pgx would close the connection
	}
	before := ph.base.Mark()
	open := c.tx.ctx.Context // of a transaction that is still open
	c.tx.ctx.Context = ctx
	if ph.keepsCtx {
		baseCtx = &c.tx.ctx // lib/pq would ask that from a goroutine of its own, and doesn't send ROLLBACK with it
	}
	tx, err := ph.features.Begin(baseCtx, opts)
	if err != nil {
		c.tx.ctx.Context = open
		return nil, c.verdict(ctx, ph, before, harmless, "", err)
	}
	ph.tx = sqltext.TxReadWrite
	if opts.ReadOnly {
		ph.tx = sqltext.TxReadOnly
	}
	c.tx.base = tx
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
	pinger := ph.features.Pinger()
	if pinger == nil {
		return nil
	}
	if ph.base.Busy() {
		return errRowsOpen // pgx would close the connection
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	defer watch.stop()
	before := ph.base.Mark()
	if err := pinger.Ping(baseCtx); err != nil {
		return c.verdict(ctx, ph, before, harmless, "", err)
	}
	return nil
}
