package failover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// sqlState is a server's answer.
type sqlState string

func (s sqlState) Error() string    { return "server says " + string(s) }
func (s sqlState) SQLState() string { return string(s) }

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// server is a fake: what its probes and dials meet.
type server struct {
	mu        sync.Mutex
	err       error
	hangs     bool
	ignores   chan struct{} // if not nil, probes ignore their context until it is closed
	latency   time.Duration
	seen      failover.Observation
	dialSees  *failover.Observation // what dials see, if not the same
	dialErr   error                 // what dials meet, if not err
	probeErr  error                 // what probes meet, if not err
	anewSees  *failover.Observation // what those probes see that open a connection of their own, if not the same
	anewErr   error                 // and what they meet
	room      int                   // sessions it has room for; 0: any number
	sessions  int
	probes    int
	dials     int
	dialling  int
	mostDials int
	probedAt  []time.Time
}

func writer(timeline int64) failover.Observation {
	return failover.Observation{Role: failover.ReadWrite, Recovery: failover.NotInRecovery, Timeline: timeline, SystemID: "7"}
}

func standby(timeline int64) failover.Observation {
	return failover.Observation{Role: failover.ReadOnly, Recovery: failover.InRecovery, Timeline: timeline, SystemID: "7"}
}

// readOnlyPrimary is one with default_transaction_read_only.
func readOnlyPrimary(timeline int64) failover.Observation {
	return failover.Observation{Role: failover.ReadOnly, Recovery: failover.NotInRecovery, Timeline: timeline, SystemID: "7"}
}

// independent is a writer of a system of its own.
func independent(id string) failover.Observation {
	return failover.Observation{Role: failover.ReadWrite, Recovery: failover.NotInRecovery, Timeline: 1, SystemID: id}
}

func (s *server) set(f func(*server)) { s.mu.Lock(); defer s.mu.Unlock(); f(s) }
func (s *server) die()                { s.set(func(s *server) { s.err = errRefused }) }
func (s *server) freeze()             { s.set(func(s *server) { s.hangs = true }) }
func (s *server) back(o failover.Observation) {
	s.set(func(s *server) { s.err, s.hangs, s.seen = nil, false, o })
}

func (s *server) counts() (probes, dials int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probes, s.dials
}

func (s *server) probeTimes() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.probedAt)
}

func (s *server) answer(ctx context.Context) (failover.Observation, error) {
	s.mu.Lock()
	err, hangs, latency, seen := s.err, s.hangs, s.latency, s.seen
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return failover.Observation{}, ctx.Err()
	}
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return failover.Observation{}, ctx.Err()
		}
	}
	return seen, err
}

func (s *server) probe(ctx context.Context) (failover.Observation, error) {
	s.mu.Lock()
	s.probes++
	s.probedAt = append(s.probedAt, time.Now())
	ignores, met, sees := s.ignores, s.probeErr, s.anewSees
	if s.anewErr != nil && (failover.Anew(ctx) || failover.Afresh(ctx)) {
		met = s.anewErr
	}
	s.mu.Unlock()
	if met != nil {
		return failover.Observation{}, met
	}
	if ignores != nil {
		<-ignores
		return failover.Observation{}, errors.New("woken")
	}
	o, err := s.answer(ctx)
	if sees != nil && failover.Afresh(ctx) {
		o = *sees
	}
	return o, err
}

func (s *server) dial(ctx context.Context) error {
	s.mu.Lock()
	s.dials++
	s.dialling++
	s.mostDials = max(s.mostDials, s.dialling)
	s.mu.Unlock()
	o, err := s.answer(ctx)
	s.mu.Lock()
	s.dialling--
	if s.dialErr != nil {
		err = s.dialErr
	}
	if s.dialSees != nil {
		o = *s.dialSees
	}
	if err == nil && s.room > 0 && s.sessions >= s.room {
		err = sqlState("53300")
	}
	if err == nil {
		s.sessions++
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := failover.Admit(ctx, o); err != nil {
		return fmt.Errorf("after the dial: %w", err)
	}
	return nil
}

// rig is a group on fake servers, and what it said.
type rig struct {
	*failover.Group
	t       *testing.T
	servers []*server

	mu     sync.Mutex
	said   []string // callbacks, in order
	stucks []time.Time
	events []failover.Event
	logged strings.Builder

	surplus map[int]*atomic.Int64 // of the members that are connected to: see Route
	held    map[int]bool          // whose connections are all in use, and stay so
}

// routed notes where a connection leads.
func (r *rig) routed(to failover.Route) {
	r.note(func() {
		if r.surplus == nil {
			r.surplus = make(map[int]*atomic.Int64)
		}
		r.surplus[to.Member] = &to.Signals.Surplus
	})
}

// scene runs a test in a bubble of fake time. Each server begins as it is first seen.
func scene(t *testing.T, change func(*failover.Options), seen []failover.Observation, play func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t}
		opts := r.options()
		if change != nil {
			change(&opts)
		}
		var endpoints []failover.Endpoint
		for i, o := range seen {
			s := &server{seen: o}
			r.servers = append(r.servers, s)
			endpoints = append(endpoints, failover.Endpoint{
				Name:  fmt.Sprintf("db%d:5432/app", i),
				Probe: func(ctx context.Context, _ failover.Route) (failover.Observation, error) { return s.probe(ctx) },
			})
		}
		r.Group = failover.New(opts, endpoints...)
		defer r.Close()
		play(r)
	})
}

// options are those of most scenes.
func (r *rig) options() failover.Options {
	opts := failover.Options{
		Pool: "app", TargetSessionAttrs: "any", Fencing: true, Failover: true, Failback: true, FailbackAfter: 3,
		HealthCheck: true, HealthCheckInterval: 5 * time.Second, HealthCheckTimeout: time.Second,
		FailoverTimeout: 30 * time.Second, FailoverRetryDelay: time.Second, ConnectTimeout: 5 * time.Second, DialLimit: 4,
		OnFailover: func(e failover.Event) { r.note(func() { r.events = append(r.events, e) }) },
		Drop:       func(i int, _ int64, why error) { r.say("drop %d: %s", i, why.(*failover.DropError).Kind) },
		Drain:      func(i int) { r.say("drain %d", i) },
		Shed: func(i, n int) {
			r.say("shed %d: %d", i, n)
			r.note(func() {
				if !r.held[i] {
					r.surplus[i].Add(int64(-n))
				}
			})
		},
		Stuck: func(i int, since time.Time, _ error) {
			r.say("stuck %d", i)
			r.note(func() { r.stucks = append(r.stucks, since) })
		},
	}
	log := slog.New(slog.NewTextHandler(lockedWriter{r}, nil))
	opts.Logger = func() *slog.Logger { return log }
	return opts
}

type lockedWriter struct{ r *rig }

func (w lockedWriter) Write(p []byte) (n int, err error) {
	w.r.note(func() { n, err = w.r.logged.Write(p) })
	return n, err
}

func (r *rig) note(f func()) { r.mu.Lock(); defer r.mu.Unlock(); f() }
func (r *rig) say(format string, args ...any) {
	r.note(func() { r.said = append(r.said, fmt.Sprintf(format, args...)) })
}

// heard gives the callbacks since it was last asked.
func (r *rig) heard() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := strings.Join(r.said, ", ")
	r.said = nil
	return s
}

func (r *rig) stuckSince(n int) time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.stucks[n] }

func (r *rig) log() string { r.mu.Lock(); defer r.mu.Unlock(); return r.logged.String() }

func (r *rig) kinds() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kinds []string
	for _, e := range r.events {
		kinds = append(kinds, fmt.Sprintf("%s %s->%s", e.Kind, e.From[:3], e.To[:3]))
	}
	return strings.Join(kinds, ", ")
}

// connect makes a connection and says to which endpoint.
func (r *rig) connect(ctx context.Context) (int, error) {
	at := -1
	err := r.Connect(ctx, time.Time{}, func(ctx context.Context, to failover.Route) error {
		at = to.Member
		r.routed(to)
		return r.servers[at].dial(ctx)
	})
	return at, err
}

func (r *rig) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// reaches fails the test unless a checkout gets to that endpoint.
func (r *rig) reaches(want int) {
	r.t.Helper()
	if at, err := r.connect(context.Background()); err != nil || at != want {
		r.t.Fatalf("connected to %d, %v; want %d", at, err, want)
	}
}

// warmUp connects, lets the first probes happen, and forgets what was said.
func (r *rig) warmUp(want int) {
	r.t.Helper()
	r.reaches(want)
	r.pass(10 * time.Millisecond)
	r.reaches(want)
	r.heard()
}

// pass lets time go by and all that is due happen.
func (r *rig) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) stateIs(i int, want failover.State) {
	r.t.Helper()
	synctest.Wait()
	if got := r.Health().Endpoints[i].State; got != want {
		r.t.Fatalf("endpoint %d is %s (%s), want %s", i, got, r.Health().Endpoints[i].LastError, want)
	}
}

func (r *rig) currentIs(want int) {
	r.t.Helper()
	synctest.Wait()
	if got, ok := r.Current(); !ok || got != want {
		r.t.Fatalf("current is %d, %v; want %d", got, ok, want)
	}
}

func (r *rig) noneUsable() {
	r.t.Helper()
	synctest.Wait()
	if got, ok := r.Current(); ok {
		r.t.Fatalf("%d is usable", got)
	}
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// took says how long f took.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

var two = []failover.Observation{independent("1"), independent("2")}
