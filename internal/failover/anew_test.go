package failover_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// goingDown is a server in a smart shutdown: its sessions go on, a probe's too, and nobody else gets in.
func goingDown(s *server) { s.dialErr, s.anewErr = sqlState("57P03"), sqlState("57P03") }

// What a probe hears on a connection that it has kept is no sign that dials succeed again.
func TestServerThatLetsNobodyIn(t *testing.T) {
	for _, c := range []struct {
		name     string
		becomes  func(*server)
		failback int
	}{
		{"smart shutdown", goingDown, 3},
		{"smart shutdown, failback at once", goingDown, 1},
		{"another password", func(s *server) { s.dialErr, s.anewErr = sqlState("28P01"), sqlState("28P01") }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			scene(t, func(o *failover.Options) { o.FailbackAfter = c.failback }, []failover.Observation{writer(1), standby(1)}, func(r *rig) {
				r.warmUp(0)
				r.servers[0].set(c.becomes)
				for range 100 {
					r.pass(100 * time.Millisecond)
					r.reaches(1)
				}
				want(r.t, "events", r.kinds(), "failover db0->db1")
				r.servers[0].set(func(s *server) { s.dialErr, s.anewErr = nil, nil })
				r.pass(time.Minute)
				r.reaches(0)
			})
		})
	}
}

// One checkout that waits for it asks no more often, and says no more, than for one that is gone.
func TestWaitForServerThatLetsNobodyIn(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(goingDown)
		_, before := r.servers[0].counts()
		waiting := make(chan error, 1)
		go func() { _, err := r.connect(context.Background()); waiting <- err }()
		r.pass(20 * time.Second)
		if _, dials := r.servers[0].counts(); dials-before > 4 {
			t.Errorf("%d dials", dials-before)
		}
		want(t, "records", strings.Count(r.log(), "\n") < 10, true)
		r.servers[0].set(func(s *server) { s.dialErr, s.anewErr = nil, nil })
		want(t, "error", <-waiting, nil)
	})
}

func checkAtOnce(r *rig, n int) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() { r.CheckNow(context.Background()) })
	}
	all.Wait()
}

// Who asks for a probe while one is under way gets the result of the next, which has all of its time.
func TestChecksAtOnce(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.pass(time.Second)
		r.servers[0].set(func(s *server) { s.latency = 700 * time.Millisecond })
		before, _ := r.servers[0].counts()
		checkAtOnce(r, 10)
		after, _ := r.servers[0].counts()
		want(t, "probes for 10 who ask at once", after-before <= 2, true)
		want(t, "said", r.heard(), "")
		want(t, "events", r.kinds(), "")
	})
}

// A freeze that one probe meets ends no call, however many wait for that probe.
func TestChecksAtOnceInAFreeze(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.pass(time.Second)
		r.servers[0].freeze()
		done := make(chan struct{})
		go func() { checkAtOnce(r, 10); close(done) }()
		r.pass(999 * time.Millisecond)
		r.servers[0].back(two[0])
		r.pass(10 * time.Second)
		<-done
		want(t, "said", r.heard(), "drain 0")
	})
}

// An address before several standbys, of which the one is promoted whose connection a probe has kept.
func TestKeptProbeOfPromotedStandby(t *testing.T) {
	scene(t, targeting("standby"), []failover.Observation{standby(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[1].die()
		r.pass(6 * time.Second)
		others := standby(1)
		r.servers[0].set(func(s *server) { s.seen, s.dialSees, s.anewSees = writer(2), &others, &others })
		r.pass(6 * time.Second)
		r.reaches(0)
	})
}

// What a call tells while a probe's result is acted on is not forgotten.
func TestEvidenceBesideAResult(t *testing.T) {
	var all *rig
	scene(t, func(o *failover.Options) {
		o.FailbackAfter = 1
		o.Drain = func(i int) {
			if i == 1 {
				all.CallFailed(0, errRefused)
			}
		}
	}, two, func(r *rig) {
		all = r
		r.warmUp(0)
		r.servers[0].die()
		r.reaches(1)
		r.servers[0].back(two[0])
		r.pass(4 * time.Second)
		r.stateIs(0, failover.Up)
	})
}
