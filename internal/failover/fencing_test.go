package failover_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// promoted is the scene after a failover: the first server died, the second was promoted.
func promoted(r *rig) {
	r.warmUp(0)
	r.servers[0].die()
	r.CheckNow(context.Background())
	r.servers[1].back(writer(2))
	r.reaches(1)
	r.heard()
}

func TestOldPrimaryIsFenced(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		promoted(r)
		r.servers[0].back(writer(1)) // un-demoted
		_, before := r.servers[0].counts()
		for range 200 {
			r.reaches(1)
			r.pass(500 * time.Millisecond)
		}
		_, after := r.servers[0].counts()
		want(r.t, "dials of the old primary", after, before)
		h := r.Health().Endpoints[0]
		want(r.t, "state", h.State, failover.Up)
		want(r.t, "fenced", h.Fenced, true)
		if err := r.Failback(context.Background()); err == nil || !strings.Contains(err.Error(), "on timeline 1, while db1:5432/app was seen on timeline 2") {
			r.t.Fatal(err)
		}

		// When the newer one dies too, writers are told why, and don't get the fenced server.
		r.servers[1].die()
		ctx, cancel := r.within(3 * time.Second)
		defer cancel()
		_, err := r.connect(ctx)
		if !errors.Is(err, failover.ErrNoEndpoint) || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "on timeline 1, while db1:5432/app was seen on timeline 2") {
			r.t.Fatal(err)
		}
	})
}

// As soon as a newer timeline is seen elsewhere, connections to the old primary must go.
func TestPromotionWhileTheOldPrimaryLives(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[1].back(writer(2))
		r.CheckNow(context.Background())
		want(r.t, "said", r.heard(), "drop 0: fenced")
		r.currentIs(1)
		r.reaches(1)
		want(r.t, "events", r.kinds(), "failover db0->db1")
	})
}

func TestOldPrimaryAsAStandbyIsNotWanted(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		promoted(r)
		r.servers[0].back(standby(2))
		r.pass(time.Minute)
		want(r.t, "fenced", r.Health().Endpoints[0].Fenced, false)
		r.currentIs(1)

		// A switchover back: the current one is stopped, the first promoted.
		r.servers[1].die()
		r.servers[0].back(writer(3))
		r.reaches(0)
		r.servers[1].back(standby(3))
		r.pass(time.Minute)
		r.currentIs(0)
		want(r.t, "events", r.kinds(), "failover db0->db1, failover db1->db0") // nobody chose it
	})
}

// Re-promoted while the other still writes: the higher timeline fences the other at once.
func TestRepromoted(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		promoted(r)
		r.servers[0].back(writer(3))
		r.CheckNow(context.Background())
		r.currentIs(0)
		want(r.t, "said", r.heard(), "drop 0: moved, drop 1: fenced")
	})
}

func TestFencingOff(t *testing.T) {
	scene(t, func(o *failover.Options) { o.TargetSessionAttrs = "read-write"; o.Fencing = false },
		[]failover.Observation{writer(1), standby(1)}, func(r *rig) {
			promoted(r)
			r.servers[0].back(writer(1))
			r.pass(time.Minute)
			r.currentIs(0)
		})
}

func TestTwoWritersOnOneTimeline(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), writer(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.reaches(1)
		r.servers[0].back(writer(1))
		r.pass(time.Minute)
		r.currentIs(1) // stay where we are
		want(r.t, "said so", strings.Count(r.log(), "level=ERROR"), 1)
		if err := r.Failback(context.Background()); err != nil { // the operator knows better
			r.t.Fatal(err)
		}
		r.currentIs(0)
	})
}

// A dial that asks for the role only doesn't make the timeline forgotten.
func TestDialThatReadsNoTimeline(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		role := failover.Observation{Role: failover.ReadWrite, Recovery: failover.NotInRecovery}
		for _, s := range r.servers {
			s.set(func(s *server) { s.dialSees = &role })
		}
		r.reaches(0)
		want(r.t, "timeline", r.Health().Endpoints[0].Timeline, 1)
		r.servers[1].back(writer(2))
		for r.Health().Endpoints[1].Role != failover.ReadWrite { // no probe of the first one is needed
			r.pass(10 * time.Millisecond)
			r.reaches(map[bool]int{true: 1, false: 0}[r.Health().Endpoints[0].Fenced])
		}
		want(r.t, "fenced", r.Health().Endpoints[0].Fenced, true)
		want(r.t, "said", r.heard(), "drop 0: fenced")
	})
}

// Whoever doesn't read the role at all changes nothing that a probe knows.
func TestDialThatReadsNothing(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.dialSees = &failover.Observation{} })
		r.reaches(0)
		want(r.t, "role", r.Health().Endpoints[0].Role, failover.ReadWrite)
		want(r.t, "timeline", r.Health().Endpoints[0].Timeline, 1)
		want(r.t, "said", r.heard(), "")
	})
}

// A moving address: the same name leads to another server now, on a newer timeline.
func TestMovedAddress(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1)}, func(r *rig) {
		r.warmUp(0)
		epoch := r.Epoch(0).Load()
		r.servers[0].back(writer(2))
		r.reaches(0)
		want(r.t, "said", r.heard(), "drop 0: moved")
		if r.Epoch(0).Load() == epoch {
			r.t.Error("connections to the old server are still used")
		}
		// A connection that still gets to the old server isn't handed out.
		r.servers[0].back(writer(1))
		_, err := r.connect(context.Background())
		if !errors.Is(err, failover.ErrNoEndpoint) || !strings.Contains(err.Error(), "timeline 2") {
			r.t.Fatal(err)
		}
	})
}

// A dial asks for the timeline where there may be an old primary, and only there: it costs a round trip. Where no writer is wanted, a
// primary's connections must tell it as well: the server may have been promoted again since a probe saw it last, and isn't the old one then.
func TestDialsThatAskForTheTimeline(t *testing.T) {
	for _, c := range []struct {
		target string
		seen   []failover.Observation // of the first, one after the other
		others []failover.Observation
		asks   bool
	}{
		{"read-write", []failover.Observation{writer(1)}, nil, false},
		{"read-write", []failover.Observation{writer(2)}, nil, true},
		{"primary", []failover.Observation{writer(2)}, nil, true},
		{"any", []failover.Observation{writer(2)}, nil, false},
		{"any", []failover.Observation{writer(1), writer(2)}, nil, false}, // no other server could be used in its place
		{"read-write", []failover.Observation{writer(1), writer(2)}, nil, true},
		{"any", []failover.Observation{writer(1)}, []failover.Observation{standby(1)}, false},
		{"any", []failover.Observation{writer(2)}, []failover.Observation{standby(2)}, true},
		{"prefer-standby", []failover.Observation{writer(2)}, []failover.Observation{standby(2)}, true},
		{"prefer-standby", []failover.Observation{standby(2)}, []failover.Observation{writer(2)}, false},
	} {
		scene(t, targeting(c.target), append(c.seen[:1:1], c.others...), func(r *rig) {
			for _, o := range c.seen {
				r.servers[0].back(o)
				r.CheckNow(context.Background())
			}
			want(r.t, c.target, r.Moves(0), c.asks)
		})
	}
}

// A primary that was in trouble may have crashed and been promoted itself since it was seen.
func TestDialsAskForTheTimelineAfterTrouble(t *testing.T) {
	scene(t, targeting("any"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.CheckNow(context.Background())
		r.pass(time.Millisecond)
		r.servers[0].set(func(s *server) { s.latency = 100 * time.Millisecond })
		r.CallFailed(0, errRefused)
		r.CallFailed(1, errRefused)
		want(r.t, "in trouble", [2]bool{r.Moves(0), r.Moves(1)}, [2]bool{true, false})
		r.pass(time.Second)
		want(r.t, "seen since", r.Moves(0), false)
		r.servers[0].die()
		r.CheckNow(context.Background())
		want(r.t, "down", r.Moves(0), true)
	})
}

// What shows an endpoint on a newer timeline than before holds for it, whenever it was asked, and what shows an older one and was asked before that doesn't:
// nobody is fenced for what it shows itself.
func TestAnswersOutOfOrderAfterAPromotion(t *testing.T) {
	three := writer(3)
	for _, target := range []string{"any", "read-write"} {
		for name, play := range map[string]func(r *rig){
			"a probe that is older than a dial": func(r *rig) {
				r.servers[0].set(func(s *server) { s.latency = 200 * time.Millisecond })
				go r.CheckNow(context.Background())
				r.pass(100 * time.Millisecond)
				r.servers[0].set(func(s *server) { s.latency = 0 })
				r.servers[0].back(three)
				r.reaches(0)
				r.pass(150 * time.Millisecond)
			},
			"a dial that is older than a suspicion": func(r *rig) {
				r.servers[0].set(func(s *server) { s.latency, s.dialSees = 300*time.Millisecond, &three })
				go r.connect(context.Background())
				r.pass(50 * time.Millisecond)
				r.servers[0].set(func(s *server) { s.latency = 0 })
				r.CheckNow(context.Background())
				r.pass(50 * time.Millisecond)
				r.servers[0].set(func(s *server) { s.latency = 400 * time.Millisecond })
				r.servers[0].back(three)
				r.CallFailed(0, errRefused)
				r.pass(250 * time.Millisecond)
			},
		} {
			scene(t, targeting(target), []failover.Observation{writer(2), standby(2)}, func(r *rig) {
				r.warmUp(0)
				r.heard()
				play(r)
				r.pass(10 * time.Second)
				want(r.t, target+", "+name, r.heard()+r.kinds(), "drop 0: moved")
			})
		}
	}
}

// An address leads to the new primary, and the connection that a probe has kept to the old one: then its answer isn't believed for ever.
func TestFencedAddressIsAskedAfresh(t *testing.T) {
	for _, target := range []string{"any", "read-write"} {
		scene(t, targeting(target), []failover.Observation{writer(2), standby(2)}, func(r *rig) {
			r.warmUp(0)
			r.servers[1].die()
			r.CheckNow(context.Background())
			three := writer(3)
			r.servers[0].set(func(s *server) { s.dialSees, s.anewSees = &three, &three })
			for range 100 {
				ctx, cancel := r.within(2 * time.Second)
				if _, err := r.connect(ctx); err != nil {
					r.t.Errorf("%s: %v", target, err)
				}
				cancel()
				r.pass(500 * time.Millisecond)
			}
		})
	}
}

// A restore from a backup brings a lower timeline back, which an operator has to say; with a single endpoint of which any will do
// nobody needs to be asked.
func TestForgetTimelines(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(3)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].back(writer(1))
		o := writer(1)
		r.servers[0].set(func(s *server) { s.dialSees = &o })
		r.CheckNow(context.Background())
		_, err := r.connect(context.Background())
		if err == nil || !strings.Contains(err.Error(), "Pool.ForgetTimelines") {
			r.t.Fatalf("the error doesn't say how to go on: %v", err)
		}
		r.ForgetTimelines()
		r.reaches(0)
		r.CheckNow(context.Background())
		r.reaches(0)
		want(r.t, "fenced", r.Health().Endpoints[0].Fenced, false)
	})
	scene(t, nil, []failover.Observation{writer(3)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].back(writer(1))
		r.CheckNow(context.Background())
		r.reaches(0)
		want(r.t, "said", r.heard(), "")
	})
}

// A dial that was answered while the server was the primary, and arrives after a probe has seen that it is none any more, is too old to tell.
func TestDialOvertakenByADemotion(t *testing.T) {
	for target, moves := range map[string]string{"read-write": "failover db0->db1", "any": "failback db0->db1"} {
		soon := func(o *failover.Options) { targeting(target)(o); o.FailbackAfter = 1 }
		scene(t, soon, []failover.Observation{writer(1), standby(1)}, func(r *rig) { overtakenByADemotion(r, moves) })
	}
}

func overtakenByADemotion(r *rig, moves string) {
	r.warmUp(0)
	r.servers[0].set(func(s *server) { s.latency = 200 * time.Millisecond })
	late := make(chan struct{})
	go func() { defer close(late); r.reaches(0) }()
	r.pass(10 * time.Millisecond)
	r.servers[0].set(func(s *server) { s.latency = 100 * time.Millisecond })
	r.servers[0].back(standby(0))
	r.servers[1].back(writer(0))
	r.CheckNow(context.Background())
	r.currentIs(1)
	r.reaches(1)
	epoch := r.Epoch(1).Load()
	r.pass(50 * time.Millisecond)
	r.CheckNow(context.Background()) // under way while the dial arrives
	<-late
	r.pass(time.Second)
	want(r.t, "connections made since are used", r.Epoch(1).Load(), epoch)
	want(r.t, "events", r.kinds(), moves)
}

// A probe that was answered before the server died, and arrives after a dial has found it dead, is too old to tell.
func TestProbeOvertakenByADeath(t *testing.T) {
	soon := func(o *failover.Options) { o.FailbackAfter = 1 }
	scene(t, soon, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 200 * time.Millisecond })
		checked := make(chan struct{})
		go func() { defer close(checked); r.CheckNow(context.Background()) }()
		r.pass(100 * time.Millisecond)
		r.servers[0].set(func(s *server) { s.latency = 0 })
		r.servers[0].die() // what it has answered is on its way
		r.reaches(1)
		epoch := r.Epoch(1).Load()
		<-checked
		r.pass(time.Second)
		want(r.t, "connections made since are used", r.Epoch(1).Load(), epoch)
		want(r.t, "events", r.kinds(), "failover db0->db1")
	})
}

// A probe that was answered before the promotion, and arrives after a dial has seen it, is too old to tell.
func TestProbeOvertakenByAPromotion(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.servers[0].die()
		r.servers[1].set(func(s *server) { s.latency = 200 * time.Millisecond })
		r.Start()
		r.pass(10 * time.Millisecond)
		r.servers[1].set(func(s *server) { s.latency = 0 })
		r.servers[1].back(writer(2))
		r.reaches(1)
		epoch := r.Epoch(1).Load()
		r.pass(time.Second)
		want(r.t, "said", r.heard(), "")
		want(r.t, "connections made since are used", r.Epoch(1).Load(), epoch)
		want(r.t, "role", r.Health().Endpoints[1].Role, failover.ReadWrite)
		want(r.t, "timeline", r.Health().Endpoints[1].Timeline, 2)
	})
}
