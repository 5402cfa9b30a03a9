package leak

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/managedpg/managedpg/internal/stack"
)

// waitFrames is how many frames a checkout that waits, or a call that has failed, has beyond where the stack of one that has a connection
// is taken.
const waitFrames = 8

// Waiter is a checkout that waits for a connection.
type Waiter struct {
	stack  *stack.Stack // nil where none is taken
	own    *stack.Stack // for one that [stack.Callers] doesn't know
	labels any
}

// Wait remembers the calling goroutine, which is about to wait, and its context's pprof labels.
func (t *Tracker) Wait(ctx context.Context) *Waiter {
	w := &Waiter{labels: labelsOf(ctx)}
	if t.options.StackDepth > 0 {
		depth := min(t.options.StackDepth+waitFrames, deepStack)
		w.stack = stack.Callers(depth, &w.own)
		if t.callers.cut(*w.stack, depth) {
			w.stack = stack.Callers(deepStack, &w.own)
		}
	}
	return w
}

// GaveUp counts in Usage that the calling goroutine has waited in vain.
func (t *Tracker) GaveUp(ctx context.Context, waited time.Duration) {
	w, now := t.Wait(ctx), t.Now()
	t.usage.add(&checkout{stack: w.stack, labels: w.labels}, now, now, tally{waited: float64(waited)})
}

// TimedOut counts in Usage that a call of the calling goroutine has run out of time.
func (t *Tracker) TimedOut(ctx context.Context) {
	w, now := t.Wait(ctx), t.Now()
	t.usage.add(&checkout{stack: w.stack, labels: w.labels}, now, now, tally{timedOut: 1})
}

// Waiting is a line of code at which checkouts wait for a connection.
type Waiting struct {
	// Caller is "file:line function", as in a Report.
	Caller string `json:"caller"`
	// Checkouts is how many wait there.
	Checkouts int64 `json:"checkouts"`
	// Longest is how long the first of them has waited; in JSON in seconds.
	Longest time.Duration `json:"longest"`
}

// MarshalJSON writes the duration in seconds.
func (w Waiting) MarshalJSON() ([]byte, error) {
	type plain Waiting
	return json.Marshal(struct {
		plain
		Longest float64 `json:"longest"`
	}{plain(w), w.Longest.Seconds()})
}

// Queue sums up who waits by line of code, those first at which most wait. Each pair is a Waiter, nil if it isn't known, and how long
// it has waited.
func (t *Tracker) Queue(waits func(yield func(*Waiter, time.Duration) bool)) []Waiting {
	byCaller := make(map[string]*Waiting)
	for w, waited := range waits {
		caller := ""
		if w != nil {
			caller = t.callerOf(w.stack.PCs())
		}
		one := byCaller[caller]
		if one == nil {
			one = &Waiting{Caller: caller}
			byCaller[caller] = one
		}
		one.Checkouts++
		one.Longest = max(one.Longest, waited)
	}
	all := make([]Waiting, 0, len(byCaller))
	for _, one := range byCaller {
		all = append(all, *one)
	}
	slices.SortFunc(all, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(b.Checkouts, a.Checkouts), cmp.Compare(b.Longest, a.Longest), cmp.Compare(a.Caller, b.Caller))
	})
	return all
}

// callerOf is the caller's frame of a stack; "" if it doesn't reach that far.
func (t *Tracker) callerOf(pcs []uintptr) string {
	frames := framesOf(pcs)
	if _, caller := t.callers.find(frames); len(frames) > 0 && caller >= 0 {
		return frameString(frames[caller])
	}
	return ""
}
