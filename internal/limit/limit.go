// Package limit has a context with a limit of time that stands still while the user's code runs.
package limit

import (
	"context"
	"sync"
	"time"
)

type clockKey struct{}

// clock is such a context.
type clock struct {
	context.Context
	done   chan struct{}
	detach func() bool // from the parent's end

	mu      sync.Mutex
	err     error
	passed  bool // the limit ended it, not the parent
	left    time.Duration
	since   time.Time // when it last went on; zero while it stands still
	timer   *time.Timer
	stopped int // by how many
}

// Hook is how long the user's code may take at a time: it may wait for a server, and whoever it runs for may have gone.
const Hook = time.Minute

// New makes a context that ends after d, times between Stop and Start not counted unless one is longer than Hook, with
// context.DeadlineExceeded. The cancel function must be called.
func New(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	c := &clock{Context: parent, done: make(chan struct{}), left: d}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goOnLocked()
	c.detach = context.AfterFunc(parent, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.endLocked(parent.Err())
	})
	return c, func() {
		c.detach()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.endLocked(context.Canceled)
	}
}

// Stop makes the limit of the context, or of one that it was derived from, stand still. Each Stop needs a Start.
func Stop(ctx context.Context) {
	c, ok := ctx.Value(clockKey{}).(*clock)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped++; c.stopped == 1 {
		c.left -= time.Since(c.since)
		c.since = time.Time{}
		c.timer.Stop()
		if c.err == nil {
			c.timer = time.AfterFunc(Hook, c.passHook)
		}
	}
}

// Start makes it go on.
func Start(ctx context.Context) {
	c, ok := ctx.Value(clockKey{}).(*clock)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped--; c.stopped == 0 {
		c.timer.Stop()
		c.goOnLocked()
	}
}

// Passed says that the limit of a context that New made has ended it, and not its parent.
func Passed(ctx context.Context) bool {
	c, ok := ctx.(*clock)
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.passed
}

func (c *clock) goOnLocked() {
	if c.err == nil {
		c.since = time.Now()
		c.timer = time.AfterFunc(c.left, c.pass)
	}
}

// pass ends it, unless it was stopped as its timer fired.
func (c *clock) pass() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.stopped == 0 && time.Since(c.since) >= c.left {
		c.passed = true
		c.endLocked(context.DeadlineExceeded)
	}
}

// passHook ends it when the user's code has taken too long, unless that came back as the timer fired.
func (c *clock) passHook() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped > 0 {
		c.endLocked(context.DeadlineExceeded)
	}
}

func (c *clock) endLocked(err error) {
	if c.err == nil {
		c.err = err
		c.timer.Stop()
		close(c.done)
	}
}

func (c *clock) Done() <-chan struct{} { return c.done }

func (c *clock) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Deadline is the parent's while the limit stands still.
func (c *clock) Deadline() (time.Time, bool) {
	at, limited := c.Context.Deadline()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return at, limited
	}
	if own := c.since.Add(c.left); !limited || own.Before(at) {
		return own, true
	}
	return at, true
}

func (c *clock) Value(key any) any {
	if key == (clockKey{}) {
		return c
	}
	return c.Context.Value(key)
}
