package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
)

// floor is the least that a wrapper can cost which tells how long connections are held: each call is passed on, the clock is read and a
// number counted at the checkout and at the check-in. It does nothing else, so nobody who has such figures can be cheaper.
type floor struct{ driver.Connector }

// least is a subject behind it.
func least(connector func() (driver.Connector, error)) *subject {
	return &subject{name: "least", limits: sized, open: func() (*sql.DB, error) {
		c, err := connector()
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(floor{c}), nil
	}}
}

// pgxConnector is bare pgx's.
func pgxConnector(dsn string) (driver.Connector, error) {
	return stdlib.GetDefaultDriver().(driver.DriverContext).OpenConnector(dsn)
}

func (f floor) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := f.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	validator, _ := c.(driver.Validator)
	return &floorConn{baseConn: c.(baseConn), validator: validator}, nil
}

type floorConn struct {
	baseConn
	validator       driver.Validator // nil: it has none, as pgx's
	since           time.Duration
	checkouts, held atomic.Int64
}

// baseConn is a connection with the interfaces that pgx's has. It is called as a wrapper does that doesn't know whose it is.
type baseConn interface {
	driver.Conn
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.Pinger
	driver.SessionResetter
	driver.NamedValueChecker
}

func (c *floorConn) ResetSession(ctx context.Context) error {
	c.checkouts.Add(1)
	c.since = wall()
	return c.baseConn.ResetSession(ctx)
}

func (c *floorConn) IsValid() bool {
	c.held.Add(int64(wall() - c.since))
	return c.validator == nil || c.validator.IsValid()
}
