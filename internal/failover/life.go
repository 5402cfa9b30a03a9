package failover

import "time"

// closePatience is how long Close waits for probes and callbacks to notice.
const closePatience = 50 * time.Millisecond

// Start starts the monitor: a goroutine for each endpoint that is probed. After the first call it costs an atomic load.
// Connect calls it.
func (g *Group) Start() {
	if g.started.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.started.CompareAndSwap(false, true) {
		return
	}
	first := time.Now().Add(g.firstProbe())
	for _, e := range g.endpoints {
		e.due = first
	}
	if g.rules.balances() {
		g.runLocked(g.balance)
	}
	for _, e := range g.endpoints {
		if e.watched {
			g.runLocked(func() { g.watch(e, time.Until(first)) })
		}
	}
}

// run starts a goroutine that ends at once when done is closed.
func (g *Group) run(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.runLocked(f)
}

func (g *Group) runLocked(f func()) bool {
	if g.closed {
		return false
	}
	g.running.Add(1)
	go func() {
		defer g.running.Done()
		f()
	}()
	return true
}

// Close ends the monitor and the dials under way, and wakes those who wait in Connect with ErrClosed. It doesn't wait for
// a probe that ignores its context.
func (g *Group) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	close(g.done)
	for a := range g.dials {
		g.out.post(func() { a.cancel(ErrClosed) })
	}
	for _, h := range g.hosts {
		if h.looking != nil {
			g.out.post(h.cancel)
		}
	}
	g.unlock()
	g.running.Wait()
	g.strays.wait(closePatience)
}
