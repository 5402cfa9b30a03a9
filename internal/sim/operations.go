package sim

import (
	"context"
	"time"

	"github.com/managedpg/managedpg"
)

// operate is what an operator does with a pool while it is at work.
func (w *world) operate(f fault) {
	w.operating.Lock()
	defer w.operating.Unlock()
	pool, ok := managedpg.PoolOf(w.db)
	if !ok {
		w.fail("it is no pool of managedpg's")
		return
	}
	switch f.kind {
	case "resize":
		if err := pool.Resize(1+f.which, f.bytes%4); err != nil {
			w.fail("resize: %v", err)
		}
	case "drain":
		pool.Drain()
	case "pause":
		ends := time.Now().Add(f.lasts)
		ctx, cancel := context.WithDeadline(context.Background(), ends)
		defer cancel()
		if err := pool.Pause(ctx); err == nil {
			w.cluster.pause(time.Now())
		}
		time.Sleep(time.Until(ends))
		w.cluster.pause(time.Time{})
		pool.Resume()
	case "close":
		w.mu.Lock()
		w.closed = true
		w.mu.Unlock()
		w.closePool()
	}
}

// closePool waits for nobody, but for the end of a statement on a connection that says nothing: see wire.CloseLimit.
func (w *world) closePool() {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	began := time.Now()
	if err := w.db.Close(); err != nil {
		w.fail("close: %v", err)
	}
	if took := time.Since(began); took > 1100*time.Millisecond {
		w.fail("close took %v", took)
	}
	if pool, ok := managedpg.PoolOf(w.db); ok {
		w.mu.Lock()
		w.unanswered = pool.Stats().CancelsUnanswered
		w.mu.Unlock()
	}
}

// pause notes since when no call may reach a server; zero: they may.
func (c *cluster) pause(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = since
}
