package conn

import (
	"database/sql/driver"
	"errors"
	"testing"
)

// A checkout that failed is over with its check-in: nobody is told of it later, and a second Close does nothing.
func TestAFailureEndsWithItsCheckout(t *testing.T) {
	p := &Pool{governed: true}
	c := &Conn{home: p, pool: p}
	failed := errors.New("no connection")
	c.life.fail(failed)
	if err := c.wake(t.Context()); err != failed {
		t.Errorf("a call is told %v", err)
	}
	if !c.IsValid() || !c.life.is(lifeEmpty) {
		t.Error("it isn't kept")
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.wake(t.Context()); err != driver.ErrBadConn {
		t.Errorf("a call after Close is told %v", err)
	}
}
