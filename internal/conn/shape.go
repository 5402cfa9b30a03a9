package conn

import (
	"context"
	"database/sql/driver"
)

// withShape gives the connection just those optional interfaces whose absence database/sql acts upon. It answers with a pointer
// into c, so that it allocates nothing and what is promoted through it takes no frame of the stack, which leak detection
// pays for.
func (c *Conn) withShape(canExec, canQuery bool) driver.Conn {
	c.shape.Conn = c
	switch {
	case canExec && canQuery:
		return (*fullConn)(&c.shape)
	case canExec:
		return (*execConn)(&c.shape)
	case canQuery:
		return (*queryConn)(&c.shape)
	default:
		return c
	}
}

type (
	shape     struct{ *Conn }
	fullConn  shape
	execConn  shape
	queryConn shape
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
