package failover_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

func TestMisconfiguredIsPassedOver(t *testing.T) {
	for _, code := range []string{"28P01", "28000", "3D000", "42501"} {
		scene(t, nil, two, func(r *rig) {
			r.servers[0].set(func(s *server) { s.err = sqlState(code) })
			want(r.t, "takes", took(func() { r.reaches(1) }), 0)
			r.pass(20 * time.Second)
			want(r.t, "state", r.Health().Endpoints[0].State, failover.Misconfigured)
			want(r.t, "error", r.Health().Endpoints[0].LastError, "server says "+code)
			want(r.t, "logged", strings.Count(r.log(), "level=ERROR"), 1)
			r.servers[0].back(two[0])
			r.pass(30 * time.Second)
			r.currentIs(0)
		})
	}
}

// Connections that work are left alone, until there is somewhere else to go, and then they drain.
func TestMisconfiguredLeavesConnectionsAlone(t *testing.T) {
	scene(t, nil, two[:1], func(r *rig) {
		r.warmUp(0)
		epoch := r.Epoch(0).Load()
		r.servers[0].set(func(s *server) { s.err = sqlState("28P01") })
		r.CheckNow(context.Background())
		want(r.t, "epoch", r.Epoch(0).Load(), epoch)
	})
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.err = sqlState("28P01") })
		r.CheckNow(context.Background())
		r.currentIs(1)
		want(r.t, "said", r.heard(), "drain 0")
	})
}

// When all refuse, the checkout fails at once with the servers' answer.
func TestAllMisconfigured(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		for _, s := range r.servers {
			s.set(func(s *server) { s.err = sqlState("28P01") })
		}
		for range 3 {
			var err error
			want(r.t, "takes", took(func() { _, err = r.connect(context.Background()) }), 0)
			var answer sqlState
			if !errors.As(err, &answer) || answer != "28P01" || !errors.Is(err, failover.ErrNoEndpoint) {
				t.Fatal(err)
			}
		}
		// They are asked again each time, so a mended password is found at once.
		r.servers[0].back(two[0])
		r.reaches(0)
	})
}

// One that refuses ends nobody's wait for another: not of those who come, nor of those who wait already.
func TestMisconfiguredEndsNobodysWait(t *testing.T) {
	three := []failover.Observation{writer(1), standby(1), standby(1)}
	scene(t, targeting("read-write"), three, func(r *rig) {
		r.servers[2].set(func(s *server) { s.err = sqlState("28000") })
		r.reaches(0)
		r.pass(time.Second)
		r.servers[0].die()
		time.AfterFunc(2*time.Second, func() { r.servers[1].back(writer(2)) })
		if d := took(func() { r.reaches(1) }); d < 2*time.Second || d > 2100*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
	scene(t, nil, two, func(r *rig) {
		r.servers[0].die()
		r.servers[1].die()
		time.AfterFunc(time.Second, func() { r.servers[1].set(func(s *server) { s.err = sqlState("3D000") }) })
		time.AfterFunc(2*time.Second, func() { r.servers[0].back(two[0]) })
		if d := took(func() { r.reaches(0) }); d < 2*time.Second || d > 2100*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}

// A probe that was cancelled is no answer about the configuration.
func TestCancelledProbe(t *testing.T) {
	for _, code := range []string{"57014", "40001"} {
		scene(t, nil, two, func(r *rig) {
			r.warmUp(0)
			r.servers[0].set(func(s *server) { s.probeErr = sqlState(code) })
			r.pass(time.Minute)
			r.stateIs(0, failover.Up)
			r.currentIs(0)
			want(r.t, "said", r.heard(), "")
		})
	}
}
