//go:build !amd64 || race

package single

import "sync/atomic"

// Counter is a number. Its zero value is 0.
type Counter struct{ n atomic.Int64 }

// Load is the number now.
func (c *Counter) Load() int64 { return c.n.Load() }

// Add adds to the number.
func (c *Counter) Add(n int64) { c.Store(c.Load() + n) }

// Store sets the number.
func (c *Counter) Store(n int64) { c.n.Store(n) }

// State is one of a few. Its zero value is 0.
type State struct{ atomic.Int64 }
