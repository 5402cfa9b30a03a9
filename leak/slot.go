package leak

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/single"
	"github.com/managedpg/managedpg/internal/stack"
)

// Slot is one physical connection's place in its tracker. CheckOut, CheckIn and Remove may be called from different
// goroutines, but only one after the other; the pool sees to that.
//
// Who may touch what: what is in checkout is written by CheckOut while state is free, and read by the tracker,
// under its mu, while state is held. The tracker raises reading before it looks at state, and CheckOut, which finds
// state free, waits for reading to fall before it writes. So a check-in is one atomic swap and a checkout one store; neither
// takes a lock, and a checkout waits only if the one before it is being copied at that moment.
type Slot struct {
	state   single.State
	reading atomic.Bool
	pid     uint32

	checkout checkout

	// What Usage goes by; it belongs to whoever has the connection.
	waited      time.Duration // of the checkout in force, or to come
	untilSample time.Duration // time to be held or waited before the next sample

	tracker  *Tracker
	id       uint64
	endpoint string
	holder   Holder

	index     int           // in tracker.slots, guarded by tracker.mu; -1: removed
	named     *named        // of the checkout last reported, guarded by tracker.mu
	reclaimed state         // the checkout that was taken back, guarded by tracker.mu
	reported  *reportedLeak // written by Scan before it sets the flag in state, read by who clears it
}

// checkout is what is remembered of the checkout in force.
type checkout struct {
	number uint64
	labels any          // see labelsOf
	stack  *stack.Stack // nil where none is taken
	own    *stack.Stack // for one that [stack.Callers] doesn't know
}

// state is 0 for a free slot, or the time of the checkout with flags below it.
type state int64

const (
	held     state = 1 << iota // always set in a slot that isn't free, for one checked out at 0
	exempt                     // LongCheckout
	reported                   // Scan has reported it

	flagBits = iota
)

func stateOf(since time.Duration) state { return state(max(since, 0))<<flagBits | held }

func (s state) since() time.Duration { return time.Duration(s >> flagBits) }

// same says whether both are one checkout, whatever became of it.
func (s state) same(other state) bool { return (s^other)&^(exempt|reported) == 0 }

// deepStack is how far a stack is walked that ends inside an ORM.
const deepStack = 64

// CheckOut says that the calling goroutine takes the connection now (see [Tracker.Now]). It captures the goroutine's
// stack and takes from ctx its pprof labels and whether it is a [LongCheckout]; ctx isn't kept. It returns the number of
// this checkout, by which [Holder.Reclaim] is told of it.
func (s *Slot) CheckOut(ctx context.Context, now time.Duration) uint64 {
	st := stateOf(now)
	if isLong(ctx) {
		st |= exempt
	}
	labels := labelsOf(ctx)
	if s.state.Load() != 0 {
		s.CheckIn(now)
	}
	for s.reading.Load() {
		runtime.Gosched()
	}
	c := &s.checkout
	c.number++
	c.labels = labels
	if depth := s.tracker.options.StackDepth; depth > 0 {
		c.stack = stack.Callers(depth, &c.own)
		if s.tracker.callers.cut(*c.stack, depth) {
			c.stack = stack.Callers(deepStack, &c.own)
		}
	}
	s.state.Store(int64(st))
	return c.number
}

// Waited says how long the checkout that follows has waited for its connection.
func (s *Slot) Waited(d time.Duration) { s.waited = d }

// CheckIn says that the connection came back now. A second check-in does nothing.
func (s *Slot) CheckIn(now time.Duration) {
	if st := state(s.state.Load()); st != 0 {
		s.used(st.since(), now)
	}
	if st := state(s.state.Swap(0)); st&reported != 0 {
		s.tracker.cameBack(s, st, now)
	}
}

// Remove says that the physical connection is closed, whether it was checked in before or not.
func (s *Slot) Remove() {
	if s.state.Load() != 0 {
		s.CheckIn(s.tracker.Now())
	}
	s.tracker.remove(s)
}
