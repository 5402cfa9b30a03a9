package failover_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// spread makes a rig whose connections are spread.
func spread(t *testing.T, target string, seen []failover.Observation, play func(*rig)) {
	t.Helper()
	scene(t, func(o *failover.Options) { o.TargetSessionAttrs, o.Random = target, true }, seen, play)
}

// open makes n connections at once and says how many lead to each server then.
func (r *rig) open(n int) string {
	r.t.Helper()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if _, err := r.connect(context.Background()); err != nil {
				r.t.Error(err)
			}
		})
	}
	all.Wait()
	return r.loads()
}

func (r *rig) loads() string {
	var s []int
	for i := range r.servers {
		s = append(s, r.Load(i))
	}
	return fmt.Sprint(s)
}

// closes ends n connections to a server.
func (r *rig) closes(i, n int) { r.AddLoad(i, -n) }

var fleet = []failover.Observation{writer(1), standby(1), standby(1), standby(1)}

func TestNewConnectionsGoWhereThereAreFewest(t *testing.T) {
	for _, target := range []string{"prefer-standby", "standby", "read-only"} {
		spread(t, target, fleet, func(r *rig) {
			want(t, target+", at once", r.open(24), "[0 8 8 8]")
			r.heard()
			r.closes(2, 5)
			want(t, target+", after some have ended", r.open(5), "[0 8 8 8]")
			r.currentIs(1)
			want(t, "events", r.kinds(), "")
			want(t, "said", r.heard(), "")
		})
	}
}

// Ties are broken at random: the first of many pools isn't always the first server's.
func TestTheFirstIsAnyOfThem(t *testing.T) {
	first := make(map[int]bool)
	for range 100 {
		spread(t, "standby", fleet, func(r *rig) {
			at, err := r.connect(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			first[at] = true
		})
	}
	delete(first, 0) // asked, and turned down
	if len(first) != 3 {
		t.Errorf("the first connections lead to %v", first)
	}
}

func TestAWriterIsOneServer(t *testing.T) {
	for _, target := range []string{"read-write", "primary"} {
		spread(t, target, []failover.Observation{independent("1"), independent("2")}, func(r *rig) {
			want(t, target, r.open(8), "[8 0]")
		})
	}
	spread(t, "any", []failover.Observation{writer(1), writer(1), standby(1)}, func(r *rig) {
		r.CheckNow(context.Background())
		want(t, "two writers on one timeline, and any", r.open(8), "[8 0 0]")
	})
	spread(t, "any", []failover.Observation{independent("1"), independent("2"), standby(1)}, func(r *rig) {
		r.CheckNow(context.Background())
		want(t, "any, of two systems", r.open(8), "[4 4 0]")
	})
}

// What goes down gives its share to the others; what comes back gets it by connections shed, and no more of them than dials
// make up for.
func TestComingBackGetsItsShare(t *testing.T) {
	spread(t, "prefer-standby", fleet, func(r *rig) {
		r.open(24)
		r.pass(10 * time.Millisecond)
		r.servers[2].die()
		r.pass(6 * time.Second)
		want(t, "down", r.heard(), "drain 2")
		r.closes(2, 8)
		want(t, "spread over the others", r.open(8), "[0 12 0 12]")
		r.pass(time.Second)
		want(t, "even", r.heard(), "")

		r.servers[2].back(standby(1))
		r.pass(6 * time.Second)
		r.shedsThree("back, and nobody dials")
		for round := 0; r.loads() != "[0 8 8 8]"; round++ {
			if round > 20 {
				t.Fatalf("not even: %s", r.loads())
			}
			for i := range r.servers {
				if n := r.Load(i); n > 8 {
					r.closes(i, min(3, n-8))
				}
			}
			for sum := 0; sum < 24; {
				r.open(1)
				sum = 0
				for i := range r.servers {
					sum += r.Load(i)
				}
			}
			r.pass(300 * time.Millisecond)
		}
		r.heard()
		r.pass(5 * time.Second)
		want(t, "even again", r.heard(), "")
	})
}

// shedsThree wants three of one of the two others' connections shed, and no more.
func (r *rig) shedsThree(when string) {
	r.t.Helper()
	if said := r.heard(); said != "shed 1: 3" && said != "shed 3: 3" {
		r.t.Errorf("%s: said %q", when, said)
	}
}

// Where all of a member's connections are held for long, those of the others go in their place.
func TestHeldConnectionsHoldNothingUp(t *testing.T) {
	spread(t, "prefer-standby", fleet, func(r *rig) {
		r.open(24)
		r.pass(10 * time.Millisecond)
		r.servers[2].die()
		r.pass(6 * time.Second)
		r.closes(2, 8)
		want(t, "spread over the others", r.open(8), "[0 12 0 12]")
		r.heard()
		r.note(func() { r.held = map[int]bool{1: true} })
		r.servers[2].back(standby(1))
		r.pass(6 * time.Second)
		if said := r.heard(); !strings.HasSuffix(said, "shed 3: 3") {
			t.Errorf("said %q", said)
		}
	})
}

// With no standby the primary serves; when there is one again it doesn't.
func TestThePrimaryStandsIn(t *testing.T) {
	spread(t, "prefer-standby", []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		want(t, "the standby", r.open(4), "[0 4]")
		r.servers[1].die()
		r.pass(6 * time.Second)
		r.closes(1, 4)
		want(t, "the primary", r.open(4), "[4 0]")
		r.servers[1].back(standby(1))
		r.pass(6 * time.Second)
		want(t, "left", r.heard(), "drain 1, drain 0")
		want(t, "events", r.kinds(), "failover db1->db0, failback db0->db1")
	})
}

// A standby that has been away for long has its share again within seconds, however rarely those are probed that are up.
func TestComingBackIsNoticed(t *testing.T) {
	scene(t, func(o *failover.Options) {
		o.TargetSessionAttrs, o.Random, o.HealthCheckInterval = "standby", true, time.Minute
	}, fleet, func(r *rig) {
		r.open(24)
		r.servers[2].die()
		r.closes(2, 8)
		if _, err := r.connect(context.Background()); err != nil { // which finds out
			t.Fatal(err)
		}
		r.open(7)
		want(t, "spread over the others", r.loads(), "[0 12 0 12]")
		r.pass(10 * time.Minute)
		r.heard()
		r.servers[2].back(standby(1))
		r.pass(3 * time.Second)
		r.shedsThree("back")
	})
}

// So has an address that is new behind a name.
func TestANewAddressIsNoticed(t *testing.T) {
	servers := map[string]failover.Observation{"a": standby(1), "b": standby(1), "c": standby(1)}
	named(t, func(o *failover.Options) {
		o.TargetSessionAttrs, o.Random, o.HealthCheckInterval = "standby", true, time.Minute
	}, servers, func(n *names) {
		for range 12 {
			if _, err := n.at(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		n.pass(10 * time.Second)
		n.heard()
		n.now(0, "a", "b", "c")
		n.pass(3 * time.Second)
		want(t, "members", n.shown(), "db0:5432/app (a) up, db0:5432/app (b) up, db0:5432/app (c) up")
		if said := n.heard(); !strings.HasPrefix(said, "shed ") {
			t.Errorf("said %q", said)
		}
	}, []string{"a", "b"})
}

// An address that leads to all servers in turn keeps its connections, which each have a server of their own. Behind one that has moved
// from a primary to a standby, as that primary's promotion tells, they lead to the primary.
func TestAnAddressOfAllServers(t *testing.T) {
	preferring := func(o *failover.Options) { o.TargetSessionAttrs = "prefer-standby" }
	scene(t, preferring, []failover.Observation{standby(1)}, func(r *rig) {
		r.warmUp(0)
		for range 4 {
			r.servers[0].back(writer(1))
			r.pass(6 * time.Second)
			r.servers[0].back(standby(1))
			r.pass(6 * time.Second)
		}
		want(t, "all servers in turn", r.heard(), "")
	})
	scene(t, preferring, []failover.Observation{standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].back(writer(2))
		r.pass(6 * time.Second)
		r.servers[0].back(standby(2))
		r.pass(6 * time.Second)
		want(t, "moved", r.heard(), "drain 0")
	})
}
