package conn

import (
	"context"
	"database/sql/driver"
)

// Unwrap is the base driver's connection inside a connection of this package, whatever stands around either, and any other value as it
// is. It is nil for one that no longer owns a connection.
func Unwrap(c any) any {
	base, _ := UnwrapContext(context.Background(), c)
	return base
}

// UnwrapContext is Unwrap that says why there is no connection. The context is for the checkout, where that is still to be made.
func UnwrapContext(ctx context.Context, c any) (any, error) {
	for own := false; ; {
		switch outer := c.(type) {
		case interface {
			Base(context.Context) (driver.Conn, error)
		}:
			base, err := outer.Base(ctx)
			if err != nil {
				return nil, err
			}
			c, own = base, true
		case interface{ Raw() driver.Conn }: // otelsql's
			c = outer.Raw()
		case driver.NamedValueChecker:
			q := whoseBase{ctx: ctx}
			if !own {
				_ = outer.CheckNamedValue(&driver.NamedValue{Ordinal: 1, Value: &q})
			}
			if !q.answered {
				return c, nil
			}
			if q.err != nil {
				return nil, q.err
			}
			c, own = q.base, true
		default:
			return c, nil
		}
	}
}

// whoseBase asks a connection for the base driver's, as an argument to be checked: a wrapper passes the check on to the connection that
// it hides, which is how sqlmw's is seen through.
type whoseBase struct {
	ctx      context.Context
	answered bool
	base     driver.Conn
	err      error
}
