package conn

import (
	"context"
	"database/sql/driver"

	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/internal/wire"
)

// exec is ExecContext of those bases that have it.
func (c *Conn) exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	if !ph.quiet {
		defer c.leave()
	}
	if c.raw {
		if args, err = c.check(ph, args, ph.features.CanExec()); err != nil {
			return nil, err
		}
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	if watch != nil {
		defer watch.stop()
	}
	before := ph.base.Mark()
	res, err := ph.features.Exec(baseCtx, query, args)
	for n := 0; err != nil && c.runAgain(ctx, ph, n, err); n++ {
		res, err = ph.features.Exec(baseCtx, query, args)
	}
	if err != nil || ph.syncWait.Load() {
		if err = c.verdict(ctx, ph, before, statement, query, err); err != nil {
			return nil, err
		}
	}
	if c.follows(ph, query) {
		c.follow(ctx, ph, query)
	}
	return res, nil
}

// query is QueryContext of those bases that have it.
func (c *Conn) query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	ph, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	if !ph.quiet {
		defer c.leave()
	}
	if c.raw {
		if args, err = c.check(ph, args, ph.features.CanQuery()); err != nil {
			return nil, err
		}
	}
	before := ph.base.Mark()
	baseCtx, watch, cancel := ph.watchRows(ctx)
	rows, err := ph.features.Query(baseCtx, query, args)
	for n := 0; err != nil && c.runAgain(ctx, ph, n, err); n++ {
		rows, err = ph.features.Query(baseCtx, query, args)
	}
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
	ph.hasRows(watch, cancel)
	if c.follows(ph, query) {
		c.follow(ctx, ph, query)
	}
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
	if !ph.quiet {
		defer c.done(watch)
	}
	if ph.base.Busy() {
		return nil, errRowsOpen // pgx would close the connection
	}
	if c.pool.opts.ReadOnly && ph.features.CanBeginReadOnly() {
		opts.ReadOnly = true // else lib/pq would say READ WRITE, which overrides the session
	}
	before := ph.base.Mark()
	attempt := attemptOf(ctx)
	if attempt.resolves() && !opts.ReadOnly {
		if ph.identity, err = resolve.Identify(ctx, ph.base, ph.identity); err != nil {
			return nil, c.verdict(ctx, ph, before, harmless, "", err)
		}
	}
	open := c.tx.ctx.Context // of a transaction that is still open
	c.tx.ctx.Context = ctx
	if ph.obeys && ph.base.Known() {
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
	if watch != nil && watch.asks {
		ph.txCtx = ctx
	}
	c.tx.base, c.tx.attempt = tx, attempt
	if attempt != nil {
		attempt.begun()
	}
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
