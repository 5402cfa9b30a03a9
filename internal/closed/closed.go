// Package closed has the one error of a pool that is closed, for packages that don't know each other.
package closed

import "errors"

// Err is managedpg.ErrClosed.
var Err = errors.New("managedpg: pool is closed")
