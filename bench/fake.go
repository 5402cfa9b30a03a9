package main

import (
	"context"
	"database/sql/driver"
	"io"
)

// fake is a base driver that does nothing and allocates nothing, with the optional interfaces that pgx's has. What a call
// costs through it is database/sql's and the wrapper's.
type fake struct{}

func (fake) Connect(context.Context) (driver.Conn, error) { return &fakeConn{}, nil }
func (fake) Driver() driver.Driver                        { return nil }

// unkept is fake, but database/sql may keep no connection of it, and asks for one at every checkout. It is always the same
// one, so what that costs is database/sql's own part of a pool that the driver governs: nobody who does so can be cheaper.
type unkept struct{ conn unkeptConn }

func (u *unkept) Connect(context.Context) (driver.Conn, error) { return &u.conn, nil }
func (u *unkept) Driver() driver.Driver                        { return nil }

type unkeptConn struct{ fakeConn }

func (*unkeptConn) IsValid() bool { return false }

type fakeConn struct{ rows fakeRows }

func (c *fakeConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, nil
}

func (c *fakeConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	c.rows.read = false
	return &c.rows, nil
}

func (c *fakeConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return &fakeStmt{conn: c}, nil
}

func (c *fakeConn) BeginTx(context.Context, driver.TxOptions) (driver.Tx, error) {
	return fakeTx{}, nil
}
func (c *fakeConn) Prepare(string) (driver.Stmt, error)      { return &fakeStmt{conn: c}, nil }
func (c *fakeConn) Begin() (driver.Tx, error)                { return fakeTx{}, nil }
func (c *fakeConn) Ping(context.Context) error               { return nil }
func (c *fakeConn) ResetSession(context.Context) error       { return nil }
func (c *fakeConn) IsValid() bool                            { return true }
func (c *fakeConn) CheckNamedValue(*driver.NamedValue) error { return nil }
func (c *fakeConn) Close() error                             { return nil }

type fakeStmt struct{ conn *fakeConn }

func (s *fakeStmt) ExecContext(context.Context, []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, nil
}

func (s *fakeStmt) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	s.conn.rows.read = false
	return &s.conn.rows, nil
}

func (s *fakeStmt) Exec([]driver.Value) (driver.Result, error) { return driver.ResultNoRows, nil }
func (s *fakeStmt) Query([]driver.Value) (driver.Rows, error)  { return &s.conn.rows, nil }
func (s *fakeStmt) NumInput() int                              { return -1 }
func (s *fakeStmt) Close() error                               { return nil }

type fakeTx struct{}

func (fakeTx) Commit() error   { return nil }
func (fakeTx) Rollback() error { return nil }

// fakeRows are one row of one number.
type fakeRows struct{ read bool }

var (
	columns              = []string{"n"}
	one     driver.Value = int64(1)
)

func (r *fakeRows) Columns() []string { return columns }
func (r *fakeRows) Close() error      { return nil }

func (r *fakeRows) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	dest[0] = one
	return nil
}

var (
	_ driver.ExecerContext      = (*fakeConn)(nil)
	_ driver.QueryerContext     = (*fakeConn)(nil)
	_ driver.ConnPrepareContext = (*fakeConn)(nil)
	_ driver.ConnBeginTx        = (*fakeConn)(nil)
	_ driver.Pinger             = (*fakeConn)(nil)
	_ driver.SessionResetter    = (*fakeConn)(nil)
	_ driver.Validator          = (*fakeConn)(nil)
	_ driver.NamedValueChecker  = (*fakeConn)(nil)
	_ driver.StmtExecContext    = (*fakeStmt)(nil)
	_ driver.StmtQueryContext   = (*fakeStmt)(nil)
)
