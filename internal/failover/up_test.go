package failover_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

func TestUpIsProbedEveryInterval(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.Start()
		r.pass(time.Minute)
		for i, s := range r.servers {
			if probes, _ := s.counts(); probes < 12 || probes > 15 {
				t.Errorf("endpoint %d: %d probes in a minute of 5s", i, probes)
			}
			h := r.Health().Endpoints[i]
			want(r.t, "failed", h.FailedChecks, 0)
			want(r.t, "rate", h.SuccessRate, 100.0)
		}
	})
}

func TestHistoriesAreBounded(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		for range 120 {
			r.servers[0].die()
			r.CheckNow(context.Background())
			r.servers[0].back(two[0])
			r.CheckNow(context.Background())
			if err := r.Failback(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		want(r.t, "checks", len(r.Health().Endpoints[0].History), 20)
		s := r.Status()
		want(r.t, "events", len(s.History), 50)
		want(r.t, "failovers", s.FailoverCount, 120)
		want(r.t, "failbacks", s.FailbackCount, 120)
		r.ResetCounts()
		want(r.t, "failovers", r.Status().FailoverCount, 0)
		want(r.t, "checks", r.Health().TotalChecks, 0)
		want(r.t, "rate", r.Health().SuccessRate, 100.0)
	})
}

func TestCheckNow(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.servers[0].set(func(s *server) { s.latency = 30 * time.Millisecond })
		r.servers[1].die()
		h := r.CheckNow(context.Background())
		want(r.t, "0", h.Endpoints[0].State, failover.Up)
		want(r.t, "0 took", h.Endpoints[0].ResponseTime, 30*time.Millisecond)
		want(r.t, "1", h.Endpoints[1].State, failover.Down)
		want(r.t, "rate", h.SuccessRate, 50.0)

		r.servers[0].freeze()
		ctx, cancel := r.within(100 * time.Millisecond)
		defer cancel()
		want(r.t, "CheckNow takes", took(func() { r.CheckNow(ctx) }), 100*time.Millisecond)
	})
}

// Without health checks CheckNow is the only thing that probes.
func TestCheckNowWithoutHealthChecks(t *testing.T) {
	scene(t, func(o *failover.Options) { o.HealthCheck = false }, two, func(r *rig) {
		r.reaches(0)
		r.CallFailed(0, errRefused)
		r.pass(time.Minute)
		probes, _ := r.servers[0].counts()
		want(r.t, "probes", probes, 0)
		want(r.t, "checks", r.CheckNow(context.Background()).TotalChecks, 2)
	})
}

// Role lost: new connections go elsewhere at once, and those made before as they are checked in.
func TestRoleLost(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		epoch := r.Epoch(0).Load()
		// A switchover: the second is promoted, the first comes back as its standby.
		r.servers[0].back(standby(2))
		r.servers[1].back(writer(2))
		r.CallFailed(0, sqlState("25006"))
		r.pass(40 * time.Millisecond)
		r.noneUsable()
		r.reaches(1)
		r.pass(time.Millisecond)
		want(r.t, "said", r.heard(), "drain 0")
		if r.Epoch(0).Load() == epoch {
			t.Error("connections made before are still used")
		}
		want(r.t, "events", r.kinds(), "failover db0->db1")
	})
}

// An address that leads now to the primary, now to a standby: a probe that meets the other one says nothing of the connections
// there are. A server that does change its role keeps its sessions: they drain.
func TestProbeThatMeetsAnotherServer(t *testing.T) {
	for _, c := range []struct {
		target       string
		before, then failover.Observation
		said         string
	}{
		{"read-write", writer(1), standby(1), ""},
		{"primary", writer(1), standby(1), ""},
		{"standby", standby(1), writer(2), "drain 0"},
		{"read-write", writer(1), readOnlyPrimary(1), "drain 0"},
	} {
		scene(t, targeting(c.target), []failover.Observation{c.before}, func(r *rig) {
			r.warmUp(0)
			r.servers[0].back(c.then)
			r.CheckNow(context.Background())
			want(r.t, c.target, r.heard(), c.said)
		})
	}
}

// A bug that writes in READ ONLY transactions must neither drain anything nor cause a stream of probes.
func Test25006ThatIsTheCallersOwn(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		epoch := r.Epoch(0).Load()
		before, _ := r.servers[0].counts()
		for range 1000 {
			r.CallFailed(0, sqlState("25006"))
			r.pass(10 * time.Millisecond)
		}
		probes, _ := r.servers[0].counts()
		if probes-before > 25 {
			t.Errorf("%d probes in 10s", probes-before)
		}
		want(r.t, "said", r.heard(), "")
		want(r.t, "epoch", r.Epoch(0).Load(), epoch)
		r.currentIs(0)
		r.stateIs(0, failover.Up)
	})
}

// One connection that meets another role is turned down, behind a proxy for example; the others are left alone until a
// probe has confirmed it.
func TestDialThatMeetsAnotherRole(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), independent("2")}, func(r *rig) {
		r.warmUp(0)
		epoch := r.Epoch(0).Load()
		o := standby(1)
		r.servers[0].set(func(s *server) { s.dialSees = &o })
		r.reaches(1)
		r.pass(100 * time.Millisecond)
		want(r.t, "epoch", r.Epoch(0).Load(), epoch)
		r.currentIs(0)
		// The connection made elsewhere meanwhile isn't kept.
		want(r.t, "said", r.heard(), "drain 1")
	})
}

// An outage that ends where it began is no failover; the log has its end.
func TestOutageThatEndsWhereItBegan(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.CallFailed(0, errRefused)
		r.pass(3 * time.Second)
		r.noneUsable()
		r.servers[0].back(writer(1))
		r.reaches(0)
		r.pass(time.Millisecond)
		want(r.t, "events", r.kinds(), "")
		if log := r.log(); strings.Count(log, "no endpoint is usable") != 1 || strings.Count(log, `endpoint is usable again" pool=app endpoint=db0:5432/app duration=2.9`) != 1 {
			t.Errorf("the log has\n%s", log)
		}
	})
}
