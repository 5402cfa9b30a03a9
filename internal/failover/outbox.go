package failover

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// call queues a callback. It needs the lock.
func (g *Group) call(f func()) { g.calls = append(g.calls, f) }

// unlock gives the lock back and makes the callbacks that are due, unless another goroutine is at it: one at a time, in
// order.
func (g *Group) unlock() {
	if g.delivering {
		g.mu.Unlock()
		return
	}
	g.delivering = true
	for len(g.calls) > 0 {
		f := g.calls[0]
		g.calls = g.calls[1:]
		g.mu.Unlock()
		f()
		g.mu.Lock()
	}
	g.delivering = false
	g.mu.Unlock()
}

// log needs the lock; the record is written without it, in order.
func (g *Group) log(level slog.Level, msg string, attrs ...any) {
	attrs = append([]any{"pool", g.opts.Pool}, attrs...)
	g.tell(func() { g.opts.Logger().Log(context.Background(), level, msg, attrs...) })
}

// tell queues news for the goroutine that tells them, and starts it if there is none. It needs the lock.
func (g *Group) tell(f func()) {
	g.news = append(g.news, f)
	if !g.telling {
		g.telling = true
		g.loosen(g.teller)
	}
}

func (g *Group) teller() {
	g.mu.Lock()
	for len(g.news) > 0 {
		f := g.news[0]
		g.news = g.news[1:]
		g.mu.Unlock()
		g.contained(f)
		g.mu.Lock()
	}
	g.telling = false
	g.mu.Unlock()
}

// contained keeps a panic of OnFailover from ending the program.
func (g *Group) contained(f func()) {
	defer func() {
		if v := recover(); v != nil {
			g.opts.Logger().Error("managedpg: panic in OnFailover", "pool", g.opts.Pool, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	f()
}
