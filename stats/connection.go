package stats

import (
	"time"

	"github.com/managedpg/managedpg/internal/single"
)

// ConnRecorder counts the checkouts of one connection, for the Recorder that made it. Its methods are for whoever has the connection,
// one after the other; the Recorder reads it meanwhile. So most of what it counts costs no instruction that cores have to agree upon,
// each of which costs as much as the rest.
type ConnRecorder struct {
	recorder *Recorder
	index    int // in recorder.conns, guarded by recorder.mu

	lent   ownAccount
	atOnce single.Counter // checkouts of a governed pool that did not wait
	held   single.Counter // ns in all
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
	held = max(held, 0)
	c.lent.leave()
	c.held.Add(int64(held))
	c.recorder.useTime.count(held)
}

// Closed counts the connection's end. Nothing else is called after it.
func (c *ConnRecorder) Closed(why Closed) {
	c.recorder.remove(c)
	c.recorder.opened.leave()
	c.recorder.closed[why].Add(1)
}

// takeOver adds what a connection has counted that is closed.
func (c *ConnRecorder) takeOver(ended *ConnRecorder) {
	c.lent.word.Add(ended.lent.word.Load())
	c.atOnce.Add(ended.atOnce.Load())
	c.held.Add(ended.held.Load())
}

// ownAccount is an account that one goroutine at a time writes.
type ownAccount struct{ word single.Counter }

func (a *ownAccount) enter() { a.word.Add(1<<nowBits + 1) }
func (a *ownAccount) leave() { a.word.Add(-1) }

func (a *ownAccount) read() (now, ever int64) { return split(uint64(a.word.Load())) }
