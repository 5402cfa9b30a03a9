package single

import (
	"runtime"
	"sync"
	"testing"
)

// Whoever finds a State finds what was written before it, and a Counter is never seen half or going back.
func TestReadersSeeWhatWasWritten(t *testing.T) {
	const free, full, rounds = 0, 1, 100_000
	var (
		state   State
		counter Counter
		data    [8]int64
		wg      sync.WaitGroup
	)
	wg.Go(func() {
		for n := range int64(rounds) {
			for state.Load() != free {
				runtime.Gosched()
			}
			for i := range data {
				data[i] = n
			}
			counter.Add(1 << 33)
			state.Store(full)
		}
	})
	wg.Go(func() {
		for n := range int64(rounds) {
			for !state.CompareAndSwap(full, full) {
				runtime.Gosched()
			}
			for i, got := range data {
				if got != n {
					t.Errorf("data[%d] is %d, want %d", i, got, n)
				}
			}
			if state.Swap(free) != full {
				t.Error("somebody else has changed the state")
			}
		}
	})
	wg.Go(func() {
		last := int64(0)
		for last < rounds<<33 {
			n := counter.Load()
			if n < last || n%(1<<33) != 0 {
				t.Errorf("%x after %x", n, last)
				return
			}
			last = n
			runtime.Gosched()
		}
	})
	wg.Wait()
}
