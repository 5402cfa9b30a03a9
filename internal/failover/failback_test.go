package failover_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

func TestFailbackNeedsGoodProbesInARow(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.reaches(1)
		r.pass(time.Millisecond)
		r.heard()
		r.servers[0].back(two[0])
		for range 2 {
			r.CheckNow(context.Background())
			r.currentIs(1)
		}
		r.servers[0].die() // the count begins anew
		r.CheckNow(context.Background())
		r.servers[0].back(two[0])
		for range 2 {
			r.CheckNow(context.Background())
			r.currentIs(1)
		}
		r.heard()
		epoch := r.Epoch(1).Load()
		r.CheckNow(context.Background())
		r.currentIs(0)
		// Connections drain: nothing is dropped.
		want(r.t, "said", r.heard(), "drain 1")
		if r.Epoch(1).Load() == epoch {
			r.t.Error("connections to the worse one are still used")
		}
		want(r.t, "events", r.kinds(), "failover db0->db1, failback db1->db0")
		if !strings.Contains(r.log(), "level=INFO msg=\"managedpg: failback\"") {
			r.t.Error(r.log())
		}
		want(r.t, "primary", r.Status().IsPrimary, true)
	})
}

func TestFailbackOff(t *testing.T) {
	scene(t, func(o *failover.Options) { o.Failback = false }, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.reaches(1)
		r.servers[0].back(two[0])
		r.pass(time.Hour)
		r.currentIs(1)
		if err := r.Failback(context.Background()); err != nil {
			r.t.Fatal(err)
		}
		r.currentIs(0)
	})
}

func TestFailbackByHand(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		if err := r.Failback(context.Background()); err != nil {
			r.t.Fatal(err)
		}
		r.servers[0].die()
		r.reaches(1)
		err := r.Failback(context.Background())
		if err == nil || !strings.Contains(err.Error(), "staying with db1:5432/app: db0:5432/app down: ") {
			r.t.Fatal(err)
		}
		r.servers[0].back(two[0])
		r.heard()
		if err := r.Failback(context.Background()); err != nil {
			r.t.Fatal(err)
		}
		r.currentIs(0)
		want(r.t, "said", r.heard(), "drain 1")

		r.servers[0].freeze()
		ctx, cancel := r.within(10 * time.Millisecond)
		defer cancel()
		if err := r.Failback(ctx); err != context.DeadlineExceeded {
			r.t.Fatal(err)
		}
	})
}

// Back at once to what can be written to, when the current one can't.
func TestFailbackToTheOnlyWriter(t *testing.T) {
	scene(t, nil, []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.reaches(1)
		r.servers[0].back(writer(1))
		r.CheckNow(context.Background())
		r.currentIs(0)
	})
}

// A connection whose dial began before the failback is handed out, but not used again.
func TestDialThatLandsAfterTheFailback(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.reaches(1)
		r.servers[0].back(two[0])
		r.servers[1].set(func(s *server) { s.latency = 100 * time.Millisecond })
		landed := make(chan uint64)
		go func() {
			epoch := r.Epoch(1).Load()
			r.reaches(1)
			landed <- epoch
		}()
		r.pass(10 * time.Millisecond)
		if err := r.Failback(context.Background()); err != nil {
			r.t.Fatal(err)
		}
		if epoch := <-landed; epoch == r.Epoch(1).Load() {
			r.t.Error("it is still used")
		}
	})
}

// The first endpoint is up and down every 300 ms for 30 s while checkouts go on.
func TestFlapping(t *testing.T) {
	for _, interval := range []time.Duration{5 * time.Second, time.Second, 50 * time.Millisecond} {
		for _, attrs := range []string{"any", "read-write"} {
			scene(t, func(o *failover.Options) { o.HealthCheckInterval = interval; o.TargetSessionAttrs = attrs }, two, func(r *rig) {
				r.warmUp(0)
				var outages atomic.Int64
				end := time.Now().Add(30 * time.Second)
				go func() {
					for time.Now().Before(end) {
						r.servers[0].die()
						outages.Add(1)
						time.Sleep(300 * time.Millisecond)
						r.servers[0].back(two[0])
						time.Sleep(300 * time.Millisecond)
					}
				}()
				checkouts := 0
				for time.Now().Before(end) {
					if d := took(func() {
						if _, err := r.connect(context.Background()); err != nil {
							r.t.Fatal(err)
						}
					}); d > 10*time.Millisecond {
						r.t.Fatalf("a checkout took %v", d)
					}
					checkouts++
					time.Sleep(10 * time.Millisecond)
				}
				s := r.Status()
				if s.FailoverCount < 1 || s.FailoverCount > outages.Load() {
					r.t.Errorf("%d failovers in %d outages", s.FailoverCount, outages.Load())
				}
				if s.FailbackCount > s.FailoverCount {
					r.t.Errorf("%d failbacks, %d failovers", s.FailbackCount, s.FailoverCount)
				}
				// failback_after good probes can't come sooner than two intervals after the first.
				last := time.Time{}
				for _, e := range s.History {
					if e.Kind == failover.Failback && e.At.Sub(last) < 2*interval*9/10 {
						r.t.Errorf("failback %v after the failover", e.At.Sub(last))
					}
					last = e.At
				}
				r.pass(20*time.Second + 5*interval)
				r.currentIs(0)
			})
		}
	}
}
