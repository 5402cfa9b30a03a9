package conn

import (
	"context"
	"database/sql/driver"

	"github.com/managedpg/managedpg/internal/base"
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

// quick is Conn.quick, for a statement that is prepared on the connection.
func (s *Stmt) quick() *physical {
	ph := s.conn.quick()
	if ph == nil || !s.isThere(ph) {
		return nil
	}
	return ph
}

// enter begins a call, and prepares the statement again if the server has forgotten it, or doesn't know it.
func (s *Stmt) enter(ctx context.Context) (*physical, error) {
	ph, err := s.conn.enter(ctx)
	if err != nil {
		return nil, err
	}
	if s.isThere(ph) {
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

// isThere says that the statement is prepared on the connection, or finds it there again.
func (s *Stmt) isThere(ph *physical) bool {
	if s.checkout == s.conn.checkout && (s.generation == ph.generation || ph.base.PreparesAnew()) {
		return true
	}
	if s.cached.in != ph.stmts || s.cached.place == nil {
		return false
	}
	ph.stmts.use(s.cached)
	s.found(s.cached, ph)
	return true
}

func (s *Stmt) found(cached *cachedStmt, ph *physical) {
	s.cached, s.checkout, s.generation = cached, s.conn.checkout, ph.generation
}

// ExecContext executes the statement.
func (s *Stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	ph := s.quick()
	if ph == nil {
		return s.execSlow(ctx, args)
	}
	before := ph.base.Mark()
	res, err := base.StmtExec(ctx, s.cached.base, args)
	if err == nil && ph.isOver(s.query) {
		return res, nil
	}
	again := func() (driver.Result, error) { return base.StmtExec(ctx, s.cached.base, args) }
	return returned(ctx, s.conn, ph, before, s.query, s.cached, res, err, again)
}

// execSlow is ExecContext where something has to be seen to.
func (s *Stmt) execSlow(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	ph, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	baseCtx, watch := ph.watch(ctx, wire.CloseLimit)
	defer s.conn.done(watch)
	before := ph.base.Mark()
	run := func() (driver.Result, error) { return base.StmtExec(baseCtx, s.cached.base, args) }
	res, err := run()
	return returned(ctx, s.conn, ph, before, s.query, s.cached, res, err, run)
}

// QueryContext executes the statement.
func (s *Stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	ph := s.quick()
	if ph == nil {
		return s.querySlow(ctx, args)
	}
	before := ph.base.Mark()
	rows, err := base.StmtQuery(ctx, s.cached.base, args)
	if err != nil || !ph.isOver(s.query) {
		again := func() (driver.Rows, error) { return base.StmtQuery(ctx, s.cached.base, args) }
		if rows, err = returnedRows(ctx, s.conn, ph, before, s.query, s.cached, rows, err, again); err != nil {
			return nil, err
		}
	}
	ph.gaveRows = true
	return rows, nil
}

// querySlow is QueryContext where something has to be seen to.
func (s *Stmt) querySlow(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	ph, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer s.conn.leave()
	before := ph.base.Mark()
	baseCtx, watch, cancel := ph.watchRows(ctx)
	run := func() (driver.Rows, error) { return base.StmtQuery(baseCtx, s.cached.base, args) }
	rows, err := run()
	rows, err = returnedRows(ctx, s.conn, ph, before, s.query, s.cached, rows, err, run)
	ph.hasRows(watch, cancel, err)
	return rows, err
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
