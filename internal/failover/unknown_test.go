package failover_test

import (
	"context"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

func TestUnknownIsTriedInConfiguredOrder(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.currentIs(0)
		want(r.t, "healthy", r.Health().Healthy, false) // not yet known
		r.reaches(0)
		want(r.t, "healthy", r.Health().Healthy, true)
		r.stateIs(0, failover.Up)
		want(r.t, "events", r.kinds(), "")
	})
}

func TestUnknownThatCannotBeReachedIsLeft(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.servers[0].die()
		r.reaches(1)
		r.pass(time.Millisecond)
		want(r.t, "events", r.kinds(), "failover db0->db1")
	})
}

func TestAnotherRoleAtTheStartIsNoFailover(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{standby(1), writer(1)}, func(r *rig) {
		r.reaches(1)
		r.pass(time.Second)
		r.currentIs(1)
		want(r.t, "events", r.kinds(), "")
	})
}

// Where nothing can be read, nothing is ruled out, and Health says so.
func TestUnreadableIsEligible(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{{Note: "CockroachDB"}, {}}, func(r *rig) {
		r.warmUp(0)
		h := r.Health()
		want(r.t, "role", h.Endpoints[0].Role, failover.RoleUnknown)
		want(r.t, "note", h.Endpoints[0].Note,
			"CockroachDB; role unknown: taken as eligible; role, timeline or system identifier unknown: never fenced")
	})
}

func TestNothingRunsBeforeTheFirstCheckout(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.pass(time.Minute)
		probes, _ := r.servers[0].counts()
		want(r.t, "probes", probes, 0)
		r.Start()
		r.Start()
		r.pass(time.Millisecond)
		probes, _ = r.servers[0].counts()
		want(r.t, "probes", probes, 1)
	})
}

// targeting is a change of target_session_attrs.
func targeting(attrs string) func(*failover.Options) {
	return func(o *failover.Options) { o.TargetSessionAttrs = attrs }
}

func TestConnectWithoutEndpoints(t *testing.T) {
	g := failover.New(failover.Options{})
	defer g.Close()
	if err := g.Connect(context.Background(), time.Time{}, nil); err == nil {
		t.Fatal("no error")
	}
	_, _ = g.Health(), g.Status()
}
