package conn

import "database/sql/driver"

// Unwrap is the base driver's connection inside a connection of this package, whatever stands around either, and any other value as it
// is. It is nil for one that no longer owns a connection.
func Unwrap(c any) any {
	for own := false; ; {
		switch outer := c.(type) {
		case interface{ Base() driver.Conn }:
			c, own = outer.Base(), true
		case interface{ Raw() driver.Conn }: // otelsql's
			c = outer.Raw()
		case driver.NamedValueChecker:
			var q whoseBase
			if !own {
				_ = outer.CheckNamedValue(&driver.NamedValue{Ordinal: 1, Value: &q})
			}
			if !q.answered {
				return c
			}
			c, own = q.base, true
		default:
			return c
		}
	}
}

// whoseBase asks a connection for the base driver's, as an argument to be checked: a wrapper passes the check on to the connection that
// it hides, which is how sqlmw's is seen through.
type whoseBase struct {
	answered bool
	base     driver.Conn
}
