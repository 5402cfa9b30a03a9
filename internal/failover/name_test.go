package failover_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

var errUnresolved error = &net.DNSError{Err: "no such host", Name: "db", IsNotFound: true}

// names are endpoints that are looked up, and the servers at their addresses.
type names struct {
	*rig
	servers map[string]*server // by address
	used    map[int]bool       // members that have connections

	answers [][]string // of each endpoint
	down    bool       // the name server says nothing of use
	hangs   bool       // it says nothing at all
	lookups int
}

// named plays a scene in which each endpoint, the first is "db0", has the addresses given.
func named(t *testing.T, change func(*failover.Options), servers map[string]failover.Observation, play func(*names), answers ...[]string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &names{rig: &rig{t: t}, servers: make(map[string]*server), used: make(map[int]bool), answers: answers}
		for address, o := range servers {
			n.servers[address] = &server{seen: o}
		}
		opts := n.options()
		opts.InUse = func(member int) (used bool) { n.note(func() { used = n.used[member] }); return used }
		opts.Gone = func(member int) { n.say("gone %d", member) }
		if change != nil {
			change(&opts)
		}
		var endpoints []failover.Endpoint
		for i := range answers {
			endpoints = append(endpoints, failover.Endpoint{
				Name:   fmt.Sprintf("db%d:5432/app", i),
				Lookup: func(ctx context.Context) ([]string, error) { return n.lookup(ctx, i) },
				Probe: func(ctx context.Context, to failover.Route) (failover.Observation, error) {
					if to.Address == "" {
						return failover.Observation{}, cmp.Or(to.LookupErr, errUnresolved)
					}
					return n.servers[to.Address].probe(ctx)
				},
			})
		}
		n.Group = failover.New(opts, endpoints...)
		defer n.Close()
		play(n)
	})
}

func (n *names) lookup(ctx context.Context, i int) (addresses []string, err error) {
	var hangs bool
	n.note(func() {
		n.lookups++
		addresses, hangs = n.answers[i], n.hangs
		if n.down {
			addresses, err = nil, &net.DNSError{Err: "server misbehaving", Name: fmt.Sprintf("db%d", i)}
		}
	})
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return addresses, err
}

// now are the addresses of an endpoint from now on.
func (n *names) now(i int, addresses ...string) { n.note(func() { n.answers[i] = addresses }) }

// at makes a connection, and says to which address.
func (n *names) at(ctx context.Context) (address string, err error) {
	err = n.Connect(ctx, time.Time{}, func(ctx context.Context, to failover.Route) error {
		if address = to.Address; address == "" {
			return cmp.Or(to.LookupErr, errUnresolved)
		}
		if err := n.servers[address].dial(ctx); err != nil {
			return err
		}
		n.note(func() { n.used[to.Member] = true })
		n.routed(to)
		return nil
	})
	return address, err
}

// leadsTo fails the test unless a checkout gets to that address within that time.
func (n *names) leadsTo(want string, within time.Duration) {
	n.t.Helper()
	start := time.Now()
	got, err := n.at(context.Background())
	if took := time.Since(start); err != nil || got != want || took > within {
		n.t.Fatalf("connected to %q in %v, %v; want %q within %v", got, took, err, want, within)
	}
}

func (n *names) shown() string {
	var all []string
	for _, e := range n.Health().Endpoints {
		all = append(all, fmt.Sprintf("%s %s", e.Endpoint, e.State))
	}
	return strings.Join(all, ", ")
}

var standbyAndPrimary = map[string]failover.Observation{"a": standby(1), "b": writer(1)}

func TestNameOfStandbyAndPrimary(t *testing.T) {
	named(t, targeting("read-write"), standbyAndPrimary, func(n *names) {
		n.leadsTo("b", 0)
		n.pass(time.Second)
		want(t, "health", n.shown(), "db0:5432/app (a) up, db0:5432/app (b) up")
		want(t, "current", n.Status().Current, "db0:5432/app (b)")
		want(t, "is primary", n.Status().IsPrimary, true)
		want(t, "failovers", n.Status().FailoverCount, 0)

		_, before := n.servers["a"].counts()
		n.leadsTo("b", 0)
		_, dials := n.servers["a"].counts()
		want(t, "the standby is asked again", dials, before)

		// They change places.
		n.servers["b"].die()
		n.servers["a"].back(writer(2))
		n.leadsTo("a", 0)
		n.servers["b"].back(writer(1))
		n.pass(10 * time.Second)
		n.leadsTo("a", 0)
		if !n.Health().Endpoints[1].Fenced {
			t.Error("the old primary is not fenced")
		}
		n.servers["a"].die()
		if _, err := n.at(context.Background()); !errors.Is(err, failover.ErrNoEndpoint) || !strings.Contains(err.Error(), "timeline 1") {
			t.Errorf("%v, want ErrNoEndpoint that says why", err)
		}
	}, []string{"a", "b"})
}

// A server that accepts and says nothing costs connect_timeout once.
func TestNameWithAHungAddress(t *testing.T) {
	for _, checked := range []bool{true, false} {
		named(t, func(o *failover.Options) { o.HealthCheck = checked; o.ConnectTimeout = time.Second }, standbyAndPrimary, func(n *names) {
			n.servers["a"].freeze()
			n.leadsTo("b", time.Second)
			n.leadsTo("b", 0)
			n.pass(time.Minute)
			n.leadsTo("b", 0)

			// All of them: once they are known to be down each has its share of the caller's time. Before that no standby stands in for
			// the primary because a caller has little.
			n.servers["b"].freeze()
			n.pass(10 * time.Second)
			ctx, cancel := n.within(100 * time.Millisecond)
			defer cancel()
			_, before := n.servers["a"].counts()
			if _, err := n.at(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, want the caller's deadline", err)
			}
			if _, after := n.servers["a"].counts(); (after > before) != checked {
				t.Errorf("the standby was asked %d times: %s", after-before, n.shown())
			}
			n.servers["a"].back(standby(1))
			n.leadsTo("a", 2*time.Second)
		}, []string{"a", "b"})
	}
}

// A dial goes on for others when whoever it was for has given up: an address that was cut short for the sake of that one's time gets its
// full time then.
func TestNameDialledForACallerInAHurry(t *testing.T) {
	named(t, targeting("read-write"), map[string]failover.Observation{"a": writer(1), "b": standby(1), "c": standby(1)}, func(n *names) {
		n.servers["a"].set(func(s *server) { s.latency = 20 * time.Millisecond })
		at := ""
		err := n.Connect(context.Background(), time.Now().Add(15*time.Millisecond), func(ctx context.Context, to failover.Route) error {
			at = to.Address
			return n.servers[at].dial(ctx)
		})
		if err != nil || at != "a" {
			t.Errorf("connected to %q, %v", at, err)
		}
	}, []string{"a", "b", "c"})
}

// Once a dial has found that an address hangs, those that dial it too go on to the next.
func TestNameWhoseHungAddressIsDialledTwice(t *testing.T) {
	named(t, func(o *failover.Options) { o.HealthCheck = false; o.ConnectTimeout = time.Second }, standbyAndPrimary, func(n *names) {
		n.servers["a"].freeze()
		began := time.Now()
		go func() { _, _ = n.at(context.Background()) }()
		n.pass(500 * time.Millisecond)
		n.leadsTo("b", 500*time.Millisecond)
		want(t, "both after", time.Since(began), time.Second)
	}, []string{"a", "b"})
}

// With a single name nobody waits for anything, as with a bare driver.
func TestNameWhoseAddressesAllRefuse(t *testing.T) {
	named(t, nil, standbyAndPrimary, func(n *names) {
		n.servers["a"].die()
		n.leadsTo("b", 0)
		want(t, "moving on to the next address at the start is no failover", n.kinds(), "")
		n.servers["b"].set(func(s *server) { s.err = sqlState("28P01") })
		for range 2 {
			var err error
			want(t, "waited", took(func() { _, err = n.at(context.Background()) }), 0)
			var none *failover.NoEndpointError
			if !errors.As(err, &none) || len(none.Endpoints) != 2 {
				t.Fatalf("%v, want an error of each address", err)
			}
			var answer sqlState
			if !errors.Is(err, errRefused) || !errors.As(err, &answer) {
				t.Errorf("%v: what they met can't be found in it", err)
			}
		}
		n.servers["a"].back(standby(1))
		n.leadsTo("a", 0) // whatever is remembered of it
	}, []string{"a", "b"})
}

func TestNameServerAway(t *testing.T) {
	named(t, nil, map[string]failover.Observation{"a": writer(1), "b": writer(1)}, func(n *names) {
		n.leadsTo("a", 0)
		n.note(func() { n.down = true })
		n.leadsTo("a", 0)
		n.servers["a"].die()
		n.leadsTo("b", 0)

		n.note(func() { n.down, n.hangs = false, true })
		n.leadsTo("b", 300*time.Millisecond)
		for range 10 {
			n.leadsTo("b", 0) // it is known not to answer
		}
		n.pass(31 * time.Second)
		n.note(func() { n.hangs = false })
		n.pass(time.Minute)
		n.now(0, "b")
		n.leadsTo("b", 0)
	}, []string{"a", "b"})

	// From the start: what the lookup met is what the dial gets.
	named(t, nil, map[string]failover.Observation{"a": writer(1), "b": writer(1)}, func(n *names) {
		n.down = true
		var unresolved *net.DNSError
		if _, err := n.at(context.Background()); !errors.As(err, &unresolved) || errors.Is(err, failover.ErrNoEndpoint) {
			t.Errorf("%v, want the lookup's error as it is", err)
		}
		n.note(func() { n.hangs = true })
		n.pass(time.Second)
		var err error
		d := took(func() { _, err = n.at(context.Background()) })
		if err == nil || d > 10*time.Second {
			t.Errorf("%v after %v", err, d)
		}
		n.note(func() { n.down, n.hangs = false, false })
		n.pass(31 * time.Second)
		n.leadsTo("a", 0)
	}, []string{"a", "b"})

	// A second name works meanwhile.
	named(t, nil, map[string]failover.Observation{"a": writer(1), "b": writer(1)}, func(n *names) {
		n.down = true
		n.answers[1] = nil
		n.pass(0)
		go func() { time.Sleep(100 * time.Millisecond); n.note(func() { n.down = false }) }()
		n.leadsTo("a", 2*time.Second)
	}, []string{"a"}, nil)
}

func TestNameChangesItsAddresses(t *testing.T) {
	servers := map[string]failover.Observation{"a": writer(1), "b": writer(1), "c": writer(1), "d": writer(1)}
	named(t, nil, servers, func(n *names) {
		n.leadsTo("a", 0)
		want(t, "with one address", n.shown(), "db0:5432/app up")
		n.now(0, "b")
		n.leadsTo("b", 0) // as a bare driver would
		n.pass(20 * time.Second)
		want(t, "with another one", n.shown(), "db0:5432/app up")
		want(t, "said", n.heard(), "")

		n.now(0, "b", "c")
		n.pass(10 * time.Second)
		want(t, "with two", n.shown(), "db0:5432/app (b) up, db0:5432/app (c) up")
		for i := range 20 { // the order means nothing
			n.now(0, []string{"c", "b"}[i%2], []string{"b", "c"}[i%2])
			n.pass(5 * time.Second)
			n.leadsTo("b", 0)
		}
		want(t, "moves", n.kinds()+n.heard(), "")

		// b leaves: not for one answer without it.
		n.now(0, "c", "d")
		n.leadsTo("b", 0)
		n.pass(20 * time.Second)
		n.leadsTo("c", 0)
		want(t, "said", n.heard(), "drain 0")
		want(t, "while it has connections", n.shown(), "db0:5432/app (b) up, db0:5432/app (c) up, db0:5432/app (d) up")
		n.note(func() { n.used[0] = false })
		n.pass(5 * time.Second)
		want(t, "without", n.shown(), "db0:5432/app (c) up, db0:5432/app (d) up")
		want(t, "said", n.heard(), "gone 0")
		probes, _ := n.servers["b"].counts()
		n.pass(time.Minute)
		after, _ := n.servers["b"].counts()
		want(t, "probes of what is gone", after, probes)

		checks := n.Health().TotalChecks
		n.now(0, "c")
		n.pass(20 * time.Second)
		want(t, "with one again", n.shown(), "db0:5432/app up")
		if n.Health().TotalChecks < checks {
			t.Error("checks were forgotten with the addresses")
		}
		n.leadsTo("c", 0)
	}, []string{"a"})
}

// What answers with a part of the addresses at a time must not make connections move.
func TestNameServerThatGivesAPart(t *testing.T) {
	all := []string{"a", "b", "c", "d"}
	servers := make(map[string]failover.Observation)
	for _, address := range all {
		servers[address] = writer(1)
	}
	named(t, nil, servers, func(n *names) {
		n.leadsTo("a", 0)
		for i := range 40 {
			n.now(0, all[i%4], all[(i+1)%4])
			n.pass(3 * time.Second)
			n.leadsTo("a", 0)
		}
		want(t, "moves", n.kinds()+n.heard(), "")
	}, []string{"a", "b"})
}

// A new primary's address makes the old one's connections go, also when the name has forgotten that.
func TestFencingAcrossAddresses(t *testing.T) {
	servers := map[string]failover.Observation{"a": writer(1), "b": standby(1)}
	named(t, targeting("read-write"), servers, func(n *names) {
		n.leadsTo("a", 0)
		n.now(0, "b", "b")
		n.servers["b"].back(standby(1))
		n.pass(30 * time.Second)
		n.heard()
		if _, err := n.at(context.Background()); !errors.Is(err, failover.ErrNoEndpoint) {
			t.Errorf("%v, want ErrNoEndpoint: no writer is left behind the name", err)
		}
		want(t, "a connection that works is kept", n.heard(), "")
		n.servers["b"].back(writer(2))
		n.leadsTo("b", 0)
		n.pass(5 * time.Second)
		if said := n.heard(); !strings.Contains(said, "drop 0: fenced") {
			t.Errorf("%q: the old primary's connections are kept", said)
		}
	}, []string{"a", "b"})
}

// Among several endpoints a name's addresses come in its place, and a promotion is waited for.
func TestNameAmongEndpoints(t *testing.T) {
	servers := map[string]failover.Observation{"a": standby(1), "b": standby(1), "c": writer(1), "d": standby(1)}
	named(t, targeting("read-write"), servers, func(n *names) {
		n.leadsTo("c", 0)
		n.pass(10 * time.Second)
		want(t, "health", n.shown(), "db0:5432/app (a) up, db0:5432/app (b) up, db1:5432/app (c) up, db1:5432/app (d) up")
		want(t, "is primary", n.Status().IsPrimary, false)

		n.servers["c"].die()
		go func() { time.Sleep(2 * time.Second); n.servers["b"].back(writer(2)) }()
		n.leadsTo("b", 2100*time.Millisecond)
		want(t, "is primary", n.Status().IsPrimary, true)
		n.pass(0)
		want(t, "moves", n.kinds(), "failover db1->db0")
	}, []string{"a", "b"}, []string{"c", "d"})
}

// A user's lookup that panics is an error.
func TestLookupPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := failover.New(failover.Options{}, failover.Endpoint{
			Name:   "db:5432/app",
			Lookup: func(context.Context) ([]string, error) { panic("no such thing") },
		})
		defer g.Close()
		err := g.Connect(context.Background(), time.Time{}, func(_ context.Context, to failover.Route) error { return to.LookupErr })
		if err == nil || !strings.Contains(err.Error(), "no such thing") {
			t.Errorf("%v, want the panic", err)
		}
	})
}
