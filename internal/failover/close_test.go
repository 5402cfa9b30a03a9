package failover_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// Close is prompt with hung probes, probes that ignore their context, dials under way, and checkouts that wait.
func TestClose(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		ignores := make(chan struct{})
		defer close(ignores)
		r.servers[1].set(func(s *server) { s.ignores = ignores })
		go r.CheckNow(context.Background())
		var checkouts sync.WaitGroup
		for range 20 {
			checkouts.Go(func() {
				if _, err := r.connect(context.Background()); !errors.Is(err, failover.ErrClosed) {
					r.t.Error(err)
				}
			})
		}
		r.pass(500 * time.Millisecond) // dialling
		if d := took(r.Close); d > 60*time.Millisecond {
			r.t.Errorf("took %v", d)
		}
		checkouts.Wait()
		r.Close()
		if _, err := r.connect(context.Background()); err != failover.ErrClosed {
			r.t.Error(err)
		}
		want(r.t, "failback", r.Failback(context.Background()), failover.ErrClosed)
		r.CallFailed(0, errRefused)
	})
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		var checkouts sync.WaitGroup
		for range 20 {
			checkouts.Go(func() {
				if _, err := r.connect(context.Background()); err != failover.ErrClosed {
					r.t.Error(err)
				}
			})
		}
		r.pass(500 * time.Millisecond) // waiting
		want(r.t, "takes", took(r.Close), 0)
		checkouts.Wait()
	})
}

func TestCloseUnstarted(t *testing.T) {
	scene(t, nil, two, func(r *rig) { want(r.t, "takes", took(r.Close), 0) })
}

// A probe that never returns is not started again, and counts as unanswered each time.
func TestProbeThatIgnoresItsContext(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		before, _ := r.servers[0].counts()
		ignores := make(chan struct{})
		r.servers[0].set(func(s *server) { s.ignores = ignores })
		r.pass(20 * time.Second)
		r.stateIs(0, failover.Down)
		r.currentIs(1)
		probes, _ := r.servers[0].counts()
		want(r.t, "probes", probes-before, 1)
		r.servers[0].set(func(s *server) { s.ignores = nil })
		close(ignores)
		r.pass(30 * time.Second)
		r.currentIs(0)
	})
}

// A callback of the user's that takes its time holds nothing up.
func TestSlowListener(t *testing.T) {
	release := make(chan struct{})
	scene(t, func(o *failover.Options) {
		release = make(chan struct{})
		o.OnFailover = func(failover.Event) { <-release }
	}, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		want(r.t, "takes", took(func() { r.reaches(1) }), 0)
		want(r.t, "said", r.heard(), "drain 0")
		if d := took(r.Close); d > 60*time.Millisecond {
			r.t.Errorf("Close took %v", d)
		}
		close(release)
	})
}

// Everything at once, for the race detector.
func TestEverythingAtOnce(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		ctx, cancel := r.within(10 * time.Second)
		defer cancel()
		var all sync.WaitGroup
		forever := func(every time.Duration, f func(n int)) {
			all.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					f(n)
					time.Sleep(every)
				}
			})
		}
		for range 8 {
			forever(3*time.Millisecond, func(int) { _, _ = r.connect(ctx) })
			forever(7*time.Millisecond, func(n int) { r.CallFailed(n%2, errRefused) })
		}
		forever(400*time.Millisecond, func(n int) {
			switch n % 4 {
			case 0:
				r.servers[0].die()
				r.servers[1].back(writer(int64(n + 2)))
			case 1:
				r.servers[0].back(standby(int64(n + 1)))
			case 2:
				r.servers[1].freeze()
				r.servers[0].back(writer(int64(n + 2)))
			case 3:
				r.servers[1].back(standby(int64(n + 1)))
			}
		})
		forever(90*time.Millisecond, func(int) { r.CheckNow(ctx) })
		forever(110*time.Millisecond, func(int) { _ = r.Failback(ctx) })
		forever(13*time.Millisecond, func(int) { _, _ = r.Health(), r.Status(); _ = r.Epoch(0).Load(); r.ResetCounts() })
		all.Wait()
	})
}
