package failover_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

func TestDownMovesOnAtOnce(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		epoch := r.Epoch(0).Load()
		r.servers[0].die()
		want(r.t, "takes", took(func() { r.reaches(1) }), 0)
		r.pass(time.Millisecond)
		want(r.t, "events", r.kinds(), "failover db0->db1")
		want(r.t, "said", r.heard(), "drain 0")
		if r.Epoch(0).Load() == epoch {
			t.Error("connections made before are still used")
		}
		e := r.Status().History[0]
		if !strings.Contains(e.Reason, "connection refused") || e.Duration != 0 {
			t.Errorf("event: %+v", e)
		}
		if log := r.log(); !strings.Contains(log, "level=WARN msg=\"managedpg: failover\" pool=app from=db0:5432/app to=db1:5432/app") {
			t.Error(log)
		}
		_, before := r.servers[0].counts()
		r.reaches(1)
		_, after := r.servers[0].counts()
		want(r.t, "dials of the dead one", after, before)
	})
}

func TestDownIsProbedWithBackoff(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.CheckNow(context.Background())
		start := time.Now()
		r.servers[0].set(func(s *server) { s.probedAt = nil })
		r.pass(40 * time.Second)
		var gaps []time.Duration
		last := start
		for _, at := range r.servers[0].probeTimes() {
			gaps = append(gaps, at.Sub(last))
			last = at
		}
		for i, gap := range gaps {
			most := min(100*time.Millisecond<<i, 5*time.Second)
			if gap > most || gap < most*9/10 {
				t.Errorf("gap %d is %v, want %v less at most a tenth", i, gap, most)
			}
		}
		if len(gaps) < 10 {
			t.Errorf("%d probes", len(gaps))
		}
	})
}

func TestDownComesBack(t *testing.T) {
	scene(t, nil, two[:1], func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.CheckNow(context.Background())
		want(r.t, "healthy", r.Health().Healthy, false)
		want(r.t, "current", r.Status().Current, "")
		r.servers[0].back(two[0])
		r.pass(100 * time.Millisecond)
		r.stateIs(0, failover.Up)
		want(r.t, "error", r.Health().Endpoints[0].LastError, "")
		want(r.t, "events", r.kinds(), "")
	})
}

// A hung server is a dead server; calls on it that are stuck are closed once a second probe had no answer either.
func TestHungProbe(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.pass(10 * time.Second)
		r.servers[0].freeze()
		froze := time.Now()
		for r.Health().Endpoints[0].State != failover.Down {
			r.pass(10 * time.Millisecond)
		}
		want(r.t, "said", r.heard(), "drain 0")
		r.currentIs(1)
		r.pass(1200 * time.Millisecond)
		want(r.t, "said", r.heard(), "stuck 0")
		if since := r.stuckSince(0); since.Before(froze) || since.After(froze.Add(5*time.Second)) {
			t.Errorf("silent since %v after the freeze", since.Sub(froze))
		}
		r.pass(1300 * time.Millisecond)
		want(r.t, "said", r.heard(), "stuck 0") // calls that got stuck later
		if !r.stuckSince(1).After(r.stuckSince(0)) {
			t.Error("a call that heard something during the first probe is never found stuck")
		}
	})
}

// A saturated pooler: nobody else is usable, so nobody's call is closed, until somebody is.
func TestHungWithNowhereToGo(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		r.pass(20 * time.Second)
		want(r.t, "said", r.heard(), "") // what works is left alone
		r.servers[1].back(independent("9"))
		r.CheckNow(context.Background())
		r.currentIs(1)
		if !strings.Contains(r.heard(), "stuck 0") {
			t.Error("stuck calls are left")
		}
	})
}

// The frozen server's standby was promoted: its sockets go at once.
func TestHungAndFenced(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		r.pass(10 * time.Second)
		r.servers[1].back(writer(2))
		r.heard()
		r.reaches(1)
		want(r.t, "said", r.heard(), "drop 0: fenced, stuck 0")
	})
}

// No route to host after a timeout is silence too: the machine lost its power.
func TestSilenceIsMoreThanATimeout(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		r.pass(6 * time.Second)
		r.servers[0].set(func(s *server) { s.hangs, s.err = false, syscall.EHOSTUNREACH })
		r.heard()
		r.pass(time.Second)
		if !strings.HasPrefix(r.heard(), "stuck 0") {
			t.Error("stuck calls are left")
		}
	})
}

// A dial under way when a probe finds the server hung moves on, long before connect_timeout.
func TestHungMovesDialsOn(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		go func() { r.pass(100 * time.Millisecond); r.CheckNow(context.Background()) }()
		if d := took(func() { r.reaches(1) }); d > 1200*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}

func TestOwnShareOfConnectTimeoutIsDown(t *testing.T) {
	scene(t, func(o *failover.Options) { o.ConnectTimeout = time.Second; o.HealthCheckTimeout = time.Minute }, two, func(r *rig) {
		r.servers[0].freeze()
		want(r.t, "takes", took(func() { r.reaches(1) }), time.Second)
		r.stateIs(0, failover.Down)
	})
}

// With any a standby would do, but not for a write; so it doesn't stand in for a primary because whoever a dial is for has little time.
func TestNoStandbyForACallerInAHurry(t *testing.T) {
	scene(t, targeting("any"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 20 * time.Millisecond })
		at := -1
		err := r.Connect(context.Background(), time.Now().Add(15*time.Millisecond), func(ctx context.Context, to failover.Route) error {
			at = to.Member
			return r.servers[at].dial(ctx)
		})
		if err != nil || at != 0 {
			t.Errorf("connected to %d, %v", at, err)
		}
	})
}

// For reads a primary stands in for a standby that hangs, within the time of whoever it is for.
func TestPrimaryForAReaderInAHurry(t *testing.T) {
	scene(t, targeting("prefer-standby"), []failover.Observation{standby(1), writer(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		start, at := time.Now(), -1
		err := r.Connect(context.Background(), start.Add(time.Second), func(ctx context.Context, to failover.Route) error {
			at = to.Member
			return r.servers[at].dial(ctx)
		})
		if took := time.Since(start); err != nil || at != 1 || took > time.Second {
			t.Errorf("connected to %d after %v, %v", at, took, err)
		}
	})
}

// Callers in a hurry say nothing of servers that are slow to open a connection: where nobody probes, nobody would take it back.
func TestHurriedDialsFindNobodyDown(t *testing.T) {
	unwatched := func(o *failover.Options) { targeting("prefer-standby")(o); o.HealthCheck = false }
	scene(t, unwatched, []failover.Observation{standby(1), standby(1), writer(1)}, func(r *rig) {
		r.reaches(0)
		for _, s := range r.servers {
			s.set(func(s *server) { s.latency = 150 * time.Millisecond })
		}
		for range 3 {
			_ = r.Connect(context.Background(), time.Now().Add(100*time.Millisecond), func(ctx context.Context, to failover.Route) error {
				return r.servers[to.Member].dial(ctx)
			})
		}
		r.pass(time.Minute)
		r.reaches(0)
		want(r.t, "events", r.kinds(), "")
	})
}

// A checkout's deadline is shared out, so that a hung first server never eats it all; that is only suspicion.
func TestDeadlineIsShared(t *testing.T) {
	scene(t, nil, []failover.Observation{independent("1"), independent("2"), independent("3")}, func(r *rig) {
		r.servers[0].freeze()
		r.servers[1].freeze()
		ctx, cancel := r.within(900 * time.Millisecond)
		defer cancel()
		start := time.Now()
		at, err := r.connect(ctx)
		if at != 2 || err != nil {
			t.Fatalf("%d, %v", at, err)
		}
		want(r.t, "took", time.Since(start), 600*time.Millisecond)
		want(r.t, "state", r.Health().Endpoints[0].State, failover.Suspect)
	})
}

// Without probes, dials and calls are the only evidence.
func TestWithoutProbes(t *testing.T) {
	scene(t, func(o *failover.Options) { o.HealthCheck = false }, two, func(r *rig) {
		r.reaches(0)
		r.servers[0].freeze()
		for range 2 { // silence of a dial cut short by the checkout's deadline: suspect, and the second time down
			ctx, cancel := r.within(time.Second)
			if at, err := r.connect(ctx); at != 1 || err != nil {
				t.Fatalf("%d, %v", at, err)
			}
			cancel()
		}
		r.stateIs(0, failover.Down)
		r.currentIs(1)

		r.servers[0].back(two[0])
		r.pass(time.Hour)
		r.reaches(1) // nothing tells that the first is back
		r.servers[1].die()
		r.reaches(0) // but it is tried when the other is gone
		r.pass(time.Millisecond)
		want(r.t, "events", r.kinds(), "failover db0->db1, failover db1->db0")
	})
}

func TestWithoutProbesTheRoundsTryAgain(t *testing.T) {
	scene(t, func(o *failover.Options) { o.HealthCheck = false }, two, func(r *rig) {
		r.servers[0].die()
		r.servers[1].die()
		time.AfterFunc(3500*time.Millisecond, func() { r.servers[1].back(two[1]) })
		d := took(func() { r.reaches(1) })
		if d < 3500*time.Millisecond || d > 4500*time.Millisecond {
			t.Errorf("took %v", d)
		}
		_, dials := r.servers[1].counts()
		if dials < 4 || dials > 9 {
			t.Errorf("%d dials", dials)
		}
	})
}

// A single endpoint fails as a bare driver does: at once, with the dial's own error, and it is dialled whatever is known.
func TestSingleEndpoint(t *testing.T) {
	for _, cause := range []error{errRefused, sqlState("57P03"), sqlState("28P01"), sqlState("53300"), errors.New("x")} {
		scene(t, nil, two[:1], func(r *rig) {
			r.warmUp(0)
			r.servers[0].set(func(s *server) { s.err = cause })
			for range 3 {
				var err error
				want(r.t, "takes", took(func() { _, err = r.connect(context.Background()) }), 0)
				want(r.t, "error", err, cause)
			}
			r.servers[0].back(two[0])
			r.reaches(0)
		})
	}
}

func TestFailoverOffUsesOnlyTheFirst(t *testing.T) {
	scene(t, func(o *failover.Options) { o.Failover = false }, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		at, err := r.connect(context.Background())
		if at != 0 || err != errRefused {
			t.Fatalf("%d, %v", at, err)
		}
		r.pass(time.Minute)
		r.noneUsable()
	})
}
