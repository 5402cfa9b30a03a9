//go:build !race

package single

import "sync/atomic"

// Counter is a number. Its zero value is 0.
type Counter struct{ n int64 }

// Load is the number now.
func (c *Counter) Load() int64 { return atomic.LoadInt64(&c.n) }

// Add adds to the number.
func (c *Counter) Add(n int64) { c.n += n }

// Store sets the number.
func (c *Counter) Store(n int64) { c.n = n }

// State is one of a few. Its zero value is 0.
type State struct{ s int64 }

// Load is the state now.
func (s *State) Load() int64 { return atomic.LoadInt64(&s.s) }

// CompareAndSwap changes it, if it is the old one.
func (s *State) CompareAndSwap(old, new int64) bool {
	return atomic.CompareAndSwapInt64(&s.s, old, new)
}

// Swap changes it, and returns the old one.
func (s *State) Swap(new int64) (old int64) { return atomic.SwapInt64(&s.s, new) }

// Store changes it. Whoever finds it so finds what was written before: a call that isn't inlined is where the compiler has that done.
//
//go:noinline
func (s *State) Store(new int64) { s.s = new }
