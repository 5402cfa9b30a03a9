package failover_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

var pair = []failover.Observation{writer(1), standby(1)}

// Checkouts wait through an outage and are woken by the probe that finds the new writer.
func TestWaitersAreWoken(t *testing.T) {
	for _, after := range []time.Duration{130 * time.Millisecond, 2 * time.Second, 4900 * time.Millisecond} {
		scene(t, targeting("read-write"), pair, func(r *rig) {
			r.warmUp(0)
			r.servers[0].die()
			opened := time.Now().Add(after)
			time.AfterFunc(after, func() { r.servers[1].back(writer(2)) })
			var checkouts sync.WaitGroup
			for range 100 {
				checkouts.Go(func() {
					r.reaches(1)
					if d := time.Since(opened); d > 50*time.Millisecond {
						r.t.Errorf("%v after the promotion", d)
					}
				})
			}
			checkouts.Wait()
			r.pass(time.Millisecond)
			want(r.t, "events", r.kinds(), "failover db0->db1")
			e := r.Status().History[0]
			if d := e.Duration - after; d < 0 || d > 50*time.Millisecond {
				r.t.Errorf("%v without a usable endpoint, outage %v", e.Duration, after)
			}
			if !strings.Contains(e.Reason, "connection refused") {
				r.t.Error(e.Reason)
			}
		})
	}
}

// The hurry wears off: every 5 ms at first, every 25 ms from 1 s to 5 s, then down to every second.
func TestHurryWearsOff(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		start := time.Now()
		go func() { _, _ = r.connect(context.Background()) }()
		r.pass(29 * time.Second)
		first, early, late := 0, 0, 0
		for _, at := range r.servers[1].probeTimes() {
			switch since := at.Sub(start); {
			case since <= 0:
			case since <= time.Second:
				first++
			case since <= 5*time.Second:
				early++
			case since > 15*time.Second:
				late++
			}
		}
		if first < 95 || first > 110 || early < 156 || early > 164 || late < 13 || late > 16 {
			r.t.Errorf("%d probes in the first second, %d in the 4s after it, %d in the last 14s", first, early, late)
		}
		r.pass(time.Minute) // nobody waits any more
		before, _ := r.servers[1].counts()
		r.pass(time.Minute)
		after, _ := r.servers[1].counts()
		if n := after - before; n > 14 {
			r.t.Errorf("%d probes in a minute without waiters", n)
		}
	})
}

// Checkouts with short deadlines come and go; the probes hurry for them all the same.
func TestShortWaiters(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		opens := time.Now().Add(time.Second)
		time.AfterFunc(time.Second, func() { r.servers[1].back(writer(2)) })
		for {
			ctx, cancel := r.within(20 * time.Millisecond)
			_, err := r.connect(ctx)
			cancel()
			if err == nil {
				break
			}
			r.pass(5 * time.Millisecond)
		}
		if d := time.Since(opens); d > 55*time.Millisecond {
			r.t.Errorf("found %v after the promotion", d)
		}
	})
}

func TestWaitObeysContext(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		ctx, cancel := r.within(700 * time.Millisecond)
		defer cancel()
		var err error
		want(r.t, "takes", took(func() { _, err = r.connect(ctx) }), 700*time.Millisecond)
		var all *failover.NoEndpointError
		if !errors.As(err, &all) || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, failover.ErrNoEndpoint) {
			r.t.Fatal(err)
		}
		want(r.t, "text", err.Error(), `managedpg: pool "app": no usable endpoint within 700ms, context deadline exceeded `+
			`(db0:5432/app down: dial tcp: connection refused; db1:5432/app up: it is a standby, wanted is read-write)`)
		want(r.t, "waited", all.Waited, 700*time.Millisecond)

		cancelled, stop := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, stop)
		want(r.t, "takes", took(func() { _, err = r.connect(cancelled) }), time.Second)
		want(r.t, "cancelled", errors.Is(err, context.Canceled), true)
		_, err = r.connect(cancelled)
		want(r.t, "cancelled", errors.Is(err, context.Canceled), true)
	})
}

func TestWaitObeysFailoverTimeout(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		var err error
		want(r.t, "takes", took(func() { _, err = r.connect(context.Background()) }), 30*time.Second)
		want(r.t, "is", errors.Is(err, failover.ErrNoEndpoint), true)
		want(r.t, "is", errors.Is(err, context.DeadlineExceeded), false)
		// Everybody's own text is found in it.
		want(r.t, "is", errors.Is(err, errRefused.Err), true)
	})
	scene(t, func(o *failover.Options) { o.FailoverTimeout = 0; o.TargetSessionAttrs = "read-write" }, pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		want(r.t, "takes", took(func() { _, _ = r.connect(context.Background()) }), 0)
	})
}

// A probe's or a dial's own limit must not read as if the caller's deadline had passed.
func TestOwnLimitsAreNotTheCallers(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		_, err := r.connect(context.Background())
		want(r.t, "no endpoint", errors.Is(err, failover.ErrNoEndpoint), true)
		want(r.t, "deadline", errors.Is(err, context.DeadlineExceeded), false)
	})
}

func TestRetryAttempts(t *testing.T) {
	for attempts, most := range map[int]time.Duration{1: 0, 3: 2 * time.Second} {
		scene(t, func(o *failover.Options) { o.FailoverRetryAttempts = attempts; o.HealthCheck = false }, two, func(r *rig) {
			r.servers[0].die()
			r.servers[1].die()
			if d := took(func() { _, _ = r.connect(context.Background()) }); d > most || d < most/2 {
				r.t.Errorf("took %v", d)
			}
			_, dials := r.servers[0].counts()
			want(r.t, "dials", dials, attempts)
		})
	}
}

// A failover is no stampede: a server with little room sees few dials at a time, and nobody sees it refuse.
func TestStampede(t *testing.T) {
	scene(t, targeting("read-write"), pair, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		time.AfterFunc(time.Second, func() {
			r.servers[1].back(writer(2))
			r.servers[1].set(func(s *server) { s.latency = 5 * time.Millisecond; s.room = 16 })
		})
		var checkouts sync.WaitGroup
		var got atomic.Int64
		for range 200 {
			checkouts.Go(func() {
				r.reaches(1)
				got.Add(1)
				time.Sleep(rand.N(50 * time.Millisecond))
				r.servers[1].set(func(s *server) { s.sessions-- })
			})
		}
		checkouts.Wait()
		want(r.t, "got one", got.Load(), 200)
		want(r.t, "dials at a time", r.servers[1].mostDials, 4)
	})
}

// A full server hides none that would do: the others are asked at once, and keep what was opened there.
func TestNoRoomGoesOn(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{standby(1), writer(1)}, func(r *rig) {
		r.servers[0].set(func(s *server) { s.err = sqlState("53300") })
		want(r.t, "takes", took(func() { r.reaches(1) }), 0)
		r.pass(time.Minute)
		r.currentIs(1)
		want(r.t, "said", r.heard(), "")
	})
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.dialErr, s.anewErr = sqlState("53300"), sqlState("53300") })
		want(r.t, "takes", took(func() { r.reaches(1) }), 0)
		r.currentIs(1)
		r.pass(time.Minute)
		r.currentIs(1)                   // its kept probe connection is answered, and yet it has no room
		want(r.t, "said", r.heard(), "") // what is open there couldn't be had again
		r.servers[0].set(func(s *server) { s.dialErr, s.anewErr = nil, nil })
		r.pass(time.Minute)
		r.currentIs(0)
		r.pass(time.Millisecond)
		want(r.t, "events", r.kinds(), "failover db0->db1, failback db1->db0")
	})
}

// Where no other will do, room is waited for.
func TestNoRoomIsWaitedFor(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.dialErr = sqlState("53300") })
		time.AfterFunc(2*time.Second, func() { r.servers[0].set(func(s *server) { s.dialErr = nil }) })
		if d := took(func() { r.reaches(0) }); d < 2*time.Second || d > 3*time.Second {
			r.t.Errorf("took %v", d)
		}
		_, dials := r.servers[0].counts()
		if dials > 12 {
			r.t.Errorf("%d dials", dials)
		}
		r.servers[0].set(func(s *server) { s.dialErr = sqlState("53300") })
		ctx, cancel := r.within(time.Second)
		defer cancel()
		_, err := r.connect(ctx)
		var answer sqlState
		if !errors.As(err, &answer) || !errors.Is(err, context.DeadlineExceeded) {
			r.t.Fatal(err)
		}
	})
}

// A checkout in the queue for a dial leaves it when its context ends, and when the server is found dead.
func TestQueueForADial(t *testing.T) {
	scene(t, func(o *failover.Options) { o.DialLimit = 1 }, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = time.Second })
		go func() { _, _ = r.connect(context.Background()) }()
		r.pass(time.Millisecond)
		ctx, cancel := r.within(100 * time.Millisecond)
		defer cancel()
		var err error
		want(r.t, "takes", took(func() { _, err = r.connect(ctx) }), 100*time.Millisecond)
		want(r.t, "is", errors.Is(err, context.DeadlineExceeded), true)
		want(r.t, "state", r.Health().Endpoints[0].State, failover.Up)

		r.servers[0].set(func(s *server) { s.latency = 0; s.err = errRefused })
		go r.CheckNow(context.Background())
		want(r.t, "takes", took(func() { r.reaches(1) }), 0)
	})
	scene(t, func(o *failover.Options) { o.DialLimit = 1 }, two[:1], func(r *rig) {
		r.servers[0].set(func(s *server) { s.latency = time.Second; s.err = errRefused })
		var checkouts sync.WaitGroup
		for range 50 {
			checkouts.Go(func() {
				if _, err := r.connect(context.Background()); err != errRefused {
					r.t.Error(err)
				}
			})
		}
		want(r.t, "all fail within", took(checkouts.Wait), time.Second)
	})
}

// After a failover the first dial has the new server to itself for a moment, so that it doesn't come last.
func TestFirstDialHasAHeadStart(t *testing.T) {
	scene(t, func(o *failover.Options) { o.DialLimit = 8 }, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.servers[1].set(func(s *server) { s.latency = 10 * time.Millisecond })
		start := time.Now()
		var checkouts sync.WaitGroup
		for range 8 {
			checkouts.Go(func() { r.reaches(1) })
		}
		r.pass(5 * time.Millisecond)
		_, dials := r.servers[1].counts()
		want(r.t, "dials at first", dials, 1)
		checkouts.Wait()
		want(r.t, "all take", time.Since(start), 20*time.Millisecond)
	})
	// A server that is slow to answer is dialled by all soon.
	scene(t, func(o *failover.Options) { o.DialLimit = 8 }, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.servers[1].set(func(s *server) { s.latency = time.Second })
		var checkouts sync.WaitGroup
		for range 8 {
			checkouts.Go(func() { r.reaches(1) })
		}
		want(r.t, "all take", took(checkouts.Wait), time.Second+50*time.Millisecond)
	})
}

// A panic in a dial goes on, and its turn goes to the next.
func TestPanicInADial(t *testing.T) {
	scene(t, func(o *failover.Options) { o.DialLimit = 1 }, pair, func(r *rig) {
		for range 3 {
			func() {
				defer func() {
					if recover() != "no" {
						r.t.Error("the panic didn't go on")
					}
				}()
				_ = r.Connect(context.Background(), time.Time{}, func(context.Context, failover.Route) error { panic("no") })
			}()
		}
		r.reaches(0)
	})
}
