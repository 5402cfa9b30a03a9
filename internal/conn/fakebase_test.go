package conn_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
)

// fakeBase is a base driver whose connections and statements have just the optional interfaces that they are told to
// have, and which writes down every call with its arguments.
//
// A text's words say what happens to whoever runs it: "skip" gives driver.ErrSkip where that is allowed, "fail" an error,
// "bad" driver.ErrBadConn, and "cancel" ends the context that is current.
type fakeBase struct {
	conns, stmts uint

	mu     sync.Mutex
	calls  []string
	opened int
	cancel context.CancelFunc
}

var errFake = errors.New("the base's own error")

// The optional interfaces of a connection.
const (
	hasExecerContext uint = 1 << iota
	hasExecer
	hasQueryerContext
	hasQueryer
	hasPrepareContext
	hasChecker
	hasBeginTx
	hasPinger
	hasResetter
	hasValidator

	numConnShapes
)

// numStmtShapes is the number of ways to have or lack the four optional interfaces of a statement: StmtExecContext,
// StmtQueryContext, NamedValueChecker, ColumnConverter.
const numStmtShapes uint = 1 << 4

func (b *fakeBase) Connect(context.Context) (driver.Conn, error) {
	b.mu.Lock()
	b.opened++
	c := &fakeConn{base: b, id: b.opened}
	b.mu.Unlock()
	c.note("connect")
	return shapedConn(c, b.conns), nil
}

func (b *fakeBase) Driver() driver.Driver { return nil }

func (b *fakeBase) log() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// run is what every statement comes to.
func (b *fakeBase) run(text string) error {
	if strings.Contains(text, "cancel") {
		b.mu.Lock()
		cancel := b.cancel
		b.mu.Unlock()
		cancel()
	}
	switch {
	case strings.Contains(text, "fail"):
		return fmt.Errorf("fake: %w", errFake)
	case strings.Contains(text, "bad"):
		return driver.ErrBadConn
	default:
		return nil
	}
}

type fakeConn struct {
	base *fakeBase
	id   int
	last int // statement
}

func (c *fakeConn) note(format string, args ...any) {
	c.base.mu.Lock()
	defer c.base.mu.Unlock()
	c.base.calls = append(c.base.calls, fmt.Sprintf("%d: ", c.id)+fmt.Sprintf(format, args...))
}

func (c *fakeConn) Close() error {
	c.note("close")
	return nil
}

func (c *fakeConn) Prepare(query string) (driver.Stmt, error) {
	c.note("prepare %q", query)
	return c.prepare(query)
}

func (c *fakeConn) prepare(query string) (driver.Stmt, error) {
	if strings.Contains(query, "late") { // goes wrong when it is run
		return c.newStmt(query), nil
	}
	if err := c.base.run(query); err != nil {
		return nil, err
	}
	return c.newStmt(query), nil
}

func (c *fakeConn) newStmt(query string) driver.Stmt {
	c.last++
	return shapedStmt(&fakeStmt{conn: c, id: c.last, query: query}, c.base.stmts)
}

func (c *fakeConn) Begin() (driver.Tx, error) {
	c.note("begin")
	return fakeTx{c}, c.base.run("begin")
}

type fakeTx struct{ conn *fakeConn }

func (t fakeTx) Commit() error {
	t.conn.note("commit")
	return nil
}

func (t fakeTx) Rollback() error {
	t.conn.note("rollback")
	return errFake
}

// What follows are the optional interfaces of a connection, one a type.

type execerContext struct{ conn *fakeConn }

func (x execerContext) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	x.conn.note("exec %q %s in a context that is %s", query, named(args), state(ctx))
	if strings.Contains(query, "skip") {
		return nil, driver.ErrSkip
	}
	return driver.RowsAffected(len(args)), x.conn.base.run(query)
}

type execer struct{ conn *fakeConn }

func (x execer) Exec(query string, args []driver.Value) (driver.Result, error) {
	x.conn.note("legacy exec %q %v", query, args)
	if strings.Contains(query, "skip") {
		return nil, driver.ErrSkip
	}
	return driver.RowsAffected(len(args)), x.conn.base.run(query)
}

type queryerContext struct{ conn *fakeConn }

func (x queryerContext) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	x.conn.note("query %q %s in a context that is %s", query, named(args), state(ctx))
	if strings.Contains(query, "skip") {
		return nil, driver.ErrSkip
	}
	return rowsOf(query, x.conn.base.run(query))
}

type queryer struct{ conn *fakeConn }

func (x queryer) Query(query string, args []driver.Value) (driver.Rows, error) {
	x.conn.note("legacy query %q %v", query, args)
	if strings.Contains(query, "skip") {
		return nil, driver.ErrSkip
	}
	return rowsOf(query, x.conn.base.run(query))
}

type preparer struct{ conn *fakeConn }

func (x preparer) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	x.conn.note("prepare %q in a context that is %s", query, state(ctx))
	return x.conn.prepare(query)
}

type checker struct{ conn *fakeConn }

func (x checker) CheckNamedValue(v *driver.NamedValue) error {
	x.conn.note("check %s", named([]driver.NamedValue{*v}))
	return checkFake(v)
}

type beginner struct{ conn *fakeConn }

func (x beginner) BeginTx(_ context.Context, opts driver.TxOptions) (driver.Tx, error) {
	x.conn.note("begin %+v", opts)
	return fakeTx(x), nil
}

type pinger struct{ conn *fakeConn }

func (x pinger) Ping(ctx context.Context) error {
	x.conn.note("ping in a context that is %s", state(ctx))
	return errFake
}

type resetter struct{ conn *fakeConn }

func (x resetter) ResetSession(context.Context) error {
	x.conn.note("reset")
	return errFake // database/sql listens to ErrBadConn only
}

type validator struct{ conn *fakeConn }

func (x validator) IsValid() bool {
	x.conn.note("valid?")
	return true
}

type fakeStmt struct {
	conn  *fakeConn
	id    int
	query string
}

func (s *fakeStmt) note(format string, args ...any) {
	s.conn.note("statement %d: "+format, append([]any{s.id}, args...)...)
}

func (s *fakeStmt) Close() error {
	s.note("close %q", s.query)
	return nil
}

// NumInput is the number of question marks, unknown without any.
func (s *fakeStmt) NumInput() int {
	if n := strings.Count(s.query, "?"); n > 0 {
		return n
	}
	return -1
}

func (s *fakeStmt) Exec(args []driver.Value) (driver.Result, error) {
	s.note("exec %q %v", s.query, args)
	return driver.RowsAffected(len(args)), s.conn.base.run(s.query)
}

func (s *fakeStmt) Query(args []driver.Value) (driver.Rows, error) {
	s.note("query %q %v", s.query, args)
	return rowsOf(s.query, s.conn.base.run(s.query))
}

type stmtExecContext struct{ stmt *fakeStmt }

func (x stmtExecContext) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	x.stmt.note("exec %q %s in a context that is %s", x.stmt.query, named(args), state(ctx))
	return driver.RowsAffected(len(args)), x.stmt.conn.base.run(x.stmt.query)
}

type stmtQueryContext struct{ stmt *fakeStmt }

func (x stmtQueryContext) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	x.stmt.note("query %q %s in a context that is %s", x.stmt.query, named(args), state(ctx))
	return rowsOf(x.stmt.query, x.stmt.conn.base.run(x.stmt.query))
}

type stmtChecker struct{ stmt *fakeStmt }

func (x stmtChecker) CheckNamedValue(v *driver.NamedValue) error {
	x.stmt.note("check %s", named([]driver.NamedValue{*v}))
	if v.Value == forStatement {
		return nil
	}
	return checkFake(v)
}

type stmtConverter struct{ stmt *fakeStmt }

func (x stmtConverter) ColumnConverter(i int) driver.ValueConverter {
	x.stmt.note("converter of column %d", i)
	return converter{}
}

type converter struct{}

func (converter) ConvertValue(v any) (driver.Value, error) {
	if v == unwanted {
		return nil, fmt.Errorf("converter: %w", errFake)
	}
	return fmt.Sprintf("converted %v", v), nil
}

// Arguments that checkers and converters have an opinion of.
type argument string

const (
	removed      argument = "removed"
	unwanted     argument = "unwanted"
	taken        argument = "taken"
	forStatement argument = "for the statement" // only its own checker takes it
)

func checkFake(v *driver.NamedValue) error {
	switch v.Value {
	case removed:
		return driver.ErrRemoveArgument
	case unwanted, forStatement:
		return fmt.Errorf("checker: %w", errFake)
	case taken:
		v.Value = "by the checker"
		return nil
	default:
		return driver.ErrSkip
	}
}

func rowsOf(query string, err error) (driver.Rows, error) {
	if err != nil {
		return nil, err
	}
	return &fakeRows{query: query, left: 2}, nil
}

type fakeRows struct {
	query string
	left  int
	sets  int
}

func (*fakeRows) Columns() []string                     { return []string{"query", "left"} }
func (*fakeRows) Close() error                          { return nil }
func (*fakeRows) ColumnTypeDatabaseTypeName(int) string { return "FAKE" }
func (r *fakeRows) HasNextResultSet() bool              { return r.sets == 0 }

func (r *fakeRows) NextResultSet() error {
	r.sets++
	r.left = 1
	return nil
}

func (r *fakeRows) Next(dest []driver.Value) error {
	if r.left == 0 {
		return io.EOF
	}
	dest[0], dest[1] = r.query, int64(r.left)
	r.left--
	return nil
}

func named(args []driver.NamedValue) string {
	var b strings.Builder
	for _, a := range args {
		fmt.Fprintf(&b, "(%d %q %T %v)", a.Ordinal, a.Name, a.Value, a.Value)
	}
	return b.String()
}

func state(ctx context.Context) string {
	if ctx.Err() != nil {
		return "over"
	}
	return "alive"
}
