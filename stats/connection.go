package stats

import (
	"time"

	"github.com/managedpg/managedpg/internal/single"
)

// ConnRecorder counts the checkouts of one connection, for the Recorder that made it. Its methods are for whoever has the connection,
// one after the other; the Recorder reads it meanwhile. So it costs no instruction that cores have to agree upon, of which each costs
// as much as all else that is counted.
type ConnRecorder struct {
	recorder *Recorder
	index    int // in recorder.conns, guarded by recorder.mu

	lent   ownAccount
	atOnce single.Counter // checkouts of a governed pool that did not wait
	use    ownHistogram
}

// CheckedOut counts a checkout.
func (c *ConnRecorder) CheckedOut() { c.lent.enter() }

// CheckedOutAfter counts a checkout of a governed pool and what it took.
func (c *ConnRecorder) CheckedOutAfter(wait time.Duration) {
	c.lent.enter()
	if wait <= 0 { // most
		c.atOnce.Add(1)
		return
	}
	c.recorder.waits.Record(wait)
}

// CheckedIn counts a check-in and how long the connection was held.
func (c *ConnRecorder) CheckedIn(held time.Duration) {
	c.lent.leave()
	c.use.record(held)
}

// Closed counts the connection's end. Nothing else is called after it.
func (c *ConnRecorder) Closed(why Closed) {
	c.recorder.remove(c)
	c.recorder.opened.leave()
	c.recorder.closed[why].Add(1)
}

// ownAccount is an account that one goroutine at a time writes.
type ownAccount struct{ word single.Counter }

func (a *ownAccount) enter() { a.word.Add(1<<nowBits + 1) }
func (a *ownAccount) leave() { a.word.Add(-1) }

func (a *ownAccount) read() (now, ever int64) { return split(uint64(a.word.Load())) }

// ownHistogram is a Histogram that one goroutine at a time writes.
type ownHistogram struct {
	sum    single.Counter
	max    single.Counter // since the last reset, which sets it too
	before single.Counter // the largest until then
	counts [numBuckets]single.Counter
}

func (h *ownHistogram) record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.sum.Add(int64(d))
	if int64(d) > h.max.Load() {
		h.max.Store(int64(d))
	}
}

func (h *ownHistogram) addTo(c *counted, ever bool) {
	for i := range h.counts {
		c.counts[i] += h.counts[i].Load()
	}
	c.sum += h.sum.Load()
	c.max = max(c.max, h.max.Load())
	if ever {
		c.max = max(c.max, h.before.Load())
	}
}

func (h *ownHistogram) reset() {
	h.before.Store(max(h.before.Load(), h.max.Load()))
	h.max.Store(0)
}

// takeOver adds what a connection has counted that is closed.
func (c *ConnRecorder) takeOver(ended *ConnRecorder) {
	c.lent.word.Add(ended.lent.word.Load())
	c.atOnce.Add(ended.atOnce.Load())
	for i := range c.use.counts {
		c.use.counts[i].Add(ended.use.counts[i].Load())
	}
	c.use.sum.Add(ended.use.sum.Load())
	c.use.max.Store(max(c.use.max.Load(), ended.use.max.Load()))
	c.use.before.Store(max(c.use.before.Load(), ended.use.before.Load()))
}
