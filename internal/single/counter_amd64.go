//go:build !race

package single

import "sync/atomic"

// Counter is a number that one goroutine at a time writes, and any may read. Its zero value is 0.
//
// sync/atomic has but one kind of store, which on amd64 locks the cache line and waits until every core sees it, for 10 to 20 ns. A figure
// needs less: that nobody reads half of it, and that stores are seen in their order. There any store does that.
type Counter struct{ n int64 }

// Load is the number now.
func (c *Counter) Load() int64 { return atomic.LoadInt64(&c.n) }

// Add adds to the number.
func (c *Counter) Add(n int64) { c.n += n }

// Store sets the number.
func (c *Counter) Store(n int64) { c.n = n }
