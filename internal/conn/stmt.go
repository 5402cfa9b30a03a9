package conn

import (
	"context"
	"database/sql/driver"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/wire"
)

// Stmt is a prepared statement of a logical connection. When the driver governs, database/sql keeps it from one checkout to the next,
// and it finds the base statement of its text on whatever physical connection there is now.
type Stmt struct {
	conn     *Conn
	query    string
	text     *text  // nil when database/sql governs
	version  uint64 // of the text: see texts
	numInput int

	cached     *cachedStmt
	checkout   uint64 // the connection's, in which cached was found
	generation uint32 // the physical connection's then
	closed     bool
}

// enter begins a call, and prepares the statement again if the server has forgotten it, or doesn't know it.
func (s *Stmt) enter(ctx context.Context) (*physical, error) {
	ph, err := s.conn.enter(ctx)
	if err != nil {
		return nil, err
	}
	if s.checkout == s.conn.checkout && (s.generation == ph.generation || ph.base.PreparesAnew()) {
		return ph, nil
	}
	if s.cached.in == ph.stmts && s.cached.place != nil { // there again
		ph.stmts.use(s.cached)
		s.found(s.cached, ph)
		return ph, nil
	}
	cached, err := s.conn.prepare(ctx, ph, s.query, s.text, s.version)
	if err == nil {
		s.found(cached, ph)
		err = ph.settle(ctx) // a cancel request for the preparing, which could hit what comes next
	}
	if err == nil && !ph.obeys {
		err = ctx.Err()
	}
	if err != nil {
		s.conn.leave()
		return nil, err
	}
	return ph, nil
}

func (s *Stmt) found(cached *cachedStmt, ph *physical) {
	s.cached, s.checkout, s.generation = cached, s.conn.checkout, ph.generation
}

// ExecContext executes the statement.
func (s *Stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	ph, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	if !ph.quiet {
		defer s.conn.done(watch)
	}
	before := ph.base.Mark()
	res, err := base.StmtExec(baseCtx, s.cached.base, args)
	for n := 0; err != nil && s.conn.runAgain(ctx, ph, n, err); n++ {
		res, err = base.StmtExec(baseCtx, s.cached.base, args)
	}
	if err != nil || ph.syncWait.Load() {
		if err = s.failed(ctx, ph, before, err); err != nil {
			return nil, err
		}
	}
	if s.conn.follows(ph, s.query) {
		s.conn.follow(ctx, ph, s.query)
	}
	return res, nil
}

// QueryContext executes the statement.
func (s *Stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	ph, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	if !ph.quiet {
		defer s.conn.leave()
	}
	before := ph.base.Mark()
	baseCtx, watch, cancel := ph.watchRows(ctx)
	rows, err := base.StmtQuery(baseCtx, s.cached.base, args)
	for n := 0; err != nil && s.conn.runAgain(ctx, ph, n, err); n++ {
		rows, err = base.StmtQuery(baseCtx, s.cached.base, args)
	}
	if err != nil || ph.syncWait.Load() {
		if err = s.failed(ctx, ph, before, err); err != nil {
			discard(rows)
			if cancel != nil {
				cancel(nil)
			}
			watch.stop()
			return nil, err
		}
	}
	ph.hasRows(watch, cancel)
	if s.conn.follows(ph, s.query) {
		s.conn.follow(ctx, ph, s.query)
	}
	return rows, nil
}

// failed is the verdict, after the statement has left the cache where the error may be one of what it was prepared for, as a column's type that
// was changed since.
func (s *Stmt) failed(ctx context.Context, ph *physical, before int64, err error) error {
	if !sqlstate.OfTheCall(sqlstate.Of(err)) {
		ph.stmts.evict(s.cached)
	}
	return s.conn.verdict(ctx, ph, before, statement, s.query, err)
}

// Exec is for callers without a context; database/sql isn't one.
func (s *Stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), numbered(args))
}

// Query is for callers without a context; database/sql isn't one.
func (s *Stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), numbered(args))
}

func numbered(args []driver.Value) []driver.NamedValue {
	named := make([]driver.NamedValue, len(args))
	for i, v := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return named
}

// NumInput is the base statement's.
func (s *Stmt) NumInput() int { return s.numInput }

// Close gives the statement back. One that is closed when its connection's checkout is over was given back with it.
func (s *Stmt) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.conn.open--
	if s.text != nil {
		var pcs [2]uintptr // driverStmt.Close and whose that is; not runtime.Callers, findCaller and this
		s.conn.pool.texts.end(s.query, s.text, findCaller(3, pcs[:], callerEnd) == callerEnd)
	}
	life := &s.conn.life
	switch {
	case life.begin():
		defer s.conn.leave()
		if s.checkout != s.conn.checkout {
			return nil
		}
	case s.conn.pool.governed:
		return nil
	case life.beginParked():
		defer life.park()
	default: // gone, or lent, which isn't waited for: database/sql has its locks held
		s.conn.stale = true
		return nil
	}
	ph := s.conn.phys
	if s.generation != ph.generation {
		return nil // the server has forgotten it, and the caches have
	}
	return ph.reading.aside(func() error { return ph.stmts.release(s.cached) })
}

// CheckNamedValue asks the base statement, or else the base connection, as database/sql does.
func (s *Stmt) CheckNamedValue(v *driver.NamedValue) error {
	if _, ok := s.cached.base.(driver.NamedValueChecker); ok && s.here() {
		return s.cached.base.(driver.NamedValueChecker).CheckNamedValue(v)
	}
	return s.conn.CheckNamedValue(v)
}

// here finds the base statement on the connection that there is now, for a base whose statements have a mind of their own about
// arguments: database/sql asks them before the call begins, and gives no context. False: the call itself will say why not.
func (s *Stmt) here() bool {
	if s.checkout == s.conn.checkout {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), wire.CloseLimit)
	defer cancel()
	if _, err := s.enter(ctx); err != nil {
		return false
	}
	s.conn.leave()
	return true
}

// convertingStmt is for a base statement that has a ColumnConverter, whose absence database/sql acts upon.
type convertingStmt struct{ *Stmt }

// ColumnConverter asks the base statement.
func (s convertingStmt) ColumnConverter(i int) driver.ValueConverter {
	if !s.here() {
		return driver.DefaultParameterConverter
	}
	//lint:ignore SA1019 database/sql still calls it
	return s.cached.base.(driver.ColumnConverter).ColumnConverter(i)
}

var (
	_ driver.StmtExecContext   = (*Stmt)(nil)
	_ driver.StmtQueryContext  = (*Stmt)(nil)
	_ driver.NamedValueChecker = (*Stmt)(nil)
	//lint:ignore SA1019 see above
	_ driver.ColumnConverter = convertingStmt{}
)
