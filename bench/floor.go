package main

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"
)

// floor is the least that a wrapper can cost which tells how long connections are held: each call is passed on, the clock is read and a
// number counted at the checkout and at the check-in. It does nothing else, so nobody who has such figures can be cheaper.
type floor struct{ fake }

func (floor) Connect(context.Context) (driver.Conn, error) {
	return &floorConn{baseConn: &fakeConn{}}, nil
}

type floorConn struct {
	baseConn
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
	driver.Validator
	driver.NamedValueChecker
}

func (c *floorConn) ResetSession(ctx context.Context) error {
	c.checkouts.Add(1)
	c.since = wall()
	return c.baseConn.ResetSession(ctx)
}

func (c *floorConn) IsValid() bool {
	c.held.Add(int64(wall() - c.since))
	return c.baseConn.IsValid()
}
