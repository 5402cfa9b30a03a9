package failover_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/failover"
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

// When none is usable the checkout fails at once with the server's answer.
func TestMisconfiguredAndNoneUsable(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.servers[0].set(func(s *server) { s.err = sqlState("28P01") })
		r.servers[1].die()
		for range 3 {
			var err error
			want(r.t, "takes", took(func() { _, err = r.connect(context.Background()) }), 0)
			var answer sqlState
			if !errors.As(err, &answer) || answer != "28P01" || !errors.Is(err, failover.ErrNoEndpoint) {
				t.Fatal(err)
			}
		}
		// It is asked again each time, so a mended password is found at once.
		r.servers[0].back(two[0])
		r.reaches(0)
	})
}

// A checkout that waits already is told too.
func TestMisconfiguredEndsTheWait(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.servers[0].die()
		r.servers[1].die()
		time.AfterFunc(2*time.Second, func() { r.servers[1].set(func(s *server) { s.err = sqlState("3D000") }) })
		d := took(func() {
			if _, err := r.connect(context.Background()); err == nil {
				t.Error("no error")
			}
		})
		if d < 2*time.Second || d > 2200*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}
