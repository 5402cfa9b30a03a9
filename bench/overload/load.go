package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg/bench/internal/quantile"
)

func splitAddr(addr string) (host, port string) {
	host, port, _ = net.SplitHostPort(addr)
	return host, port
}

// call is one, and what became of it.
type call struct {
	n          int // the how many-th
	began, end time.Time
	ok         bool
}

// load is calls.
type load struct {
	mu    sync.Mutex
	calls []call
}

func (l *load) make(n int, began time.Time, do func() error) {
	err := do()
	c := call{n, began, time.Now(), err == nil}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, c)
}

// closed has so many goroutines make calls one after the other for a time.
func (l *load) closed(goroutines int, d time.Duration, do func() error) {
	var all sync.WaitGroup
	end := time.Now().Add(d)
	for i := range goroutines {
		all.Go(func() {
			for time.Now().Before(end) {
				l.make(i, time.Now(), do)
			}
		})
	}
	all.Wait()
}

// offered makes calls at a rate of so many a second, whether those before have ended or not, and waits for all.
func (l *load) offered(rate float64, d time.Duration, do func() error) {
	var all sync.WaitGroup
	start := time.Now()
	for n := 0; time.Since(start) < d; n++ {
		at := start.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		time.Sleep(time.Until(at))
		all.Go(func() { l.make(n, at, do) })
	}
	all.Wait()
}

// burst makes so many calls at once.
func (l *load) burst(n int, do func() error) {
	var all sync.WaitGroup
	for i := range n {
		began := time.Now()
		all.Go(func() { l.make(i, began, do) })
	}
	all.Wait()
}

// served are the calls that succeeded, in the order of their ends.
func (l *load) served() []call {
	var ok []call
	for _, c := range l.calls {
		if c.ok {
			ok = append(ok, c)
		}
	}
	return ok
}

// took is a quantile of the times that the served calls took, in milliseconds.
func took(calls []call, q float64) float64 {
	var all []float64
	for _, c := range calls {
		all = append(all, c.end.Sub(c.began).Seconds()*1000)
	}
	slices.Sort(all)
	return quantile.Of(all, q)
}

// sleep is a call that takes so long on the server; deadline 0: without.
func sleep(db *sql.DB, service, deadline time.Duration) func() error {
	query := fmt.Sprintf("SELECT pg_sleep(%g)", service.Seconds())
	return func() error {
		ctx := context.Background()
		if deadline > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, deadline)
			defer cancel()
		}
		_, err := db.ExecContext(ctx, query)
		return err
	}
}
