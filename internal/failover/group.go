package failover

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/evidence"
)

// Limits of the histories kept.
const (
	keptEvents = 50
	keptChecks = 20
)

// Group is the endpoints of one pool: what is known of each, and which one is used.
//
// Evidence comes in by Connect (dials), CallFailed (calls) and the monitor (probes). Each changes what is known of one
// endpoint and then calls settleLocked, the only place where consequences are drawn: who is fenced, which endpoint is current,
// which connections have to go, whom to wake.
type Group struct {
	opts  Options
	rules rules
	alone bool // only one endpoint, of whatever number of members, can ever be used: nothing to wait for
	hosts []*host

	started atomic.Bool
	done    chan struct{} // closed by Close
	running sync.WaitGroup
	strays  strays
	out     outbox

	// mu guards what follows, and the endpoints' fields that say so. It is held for short, never during a callback, a
	// dial or a probe. Whoever has changed something gives it back by unlock, which then makes the callbacks that are due.
	mu     sync.Mutex
	closed bool
	owed   int // connections that are to be closed or were, by shedLocked, and that no dial has made up for yet
	members
	waiters
	account
}

// members are a group's endpoints, and which is used.
type members struct {
	fence fence
	// endpoints are in the configured order, those of one host in the resolver's.
	endpoints []*endpoint
	numbers   int       // the last that a member was given
	current   *endpoint // the one used, or the last one that was; nil if there is none at all
	lostAt    time.Time // since when none is usable; zero while one is
	lostWhy   string    // why the one used then no longer was
	settled   bool      // a current endpoint has been seen to work
	twoSaid   bool      // two writers have been logged
}

// waiters are the checkouts that are under way.
type waiters struct {
	changed  chan struct{} // closed, and replaced, when what Connect waits for may have come
	dials    map[*attempt]struct{}
	waiting  int       // checkouts that wait for a usable endpoint
	waitedAt time.Time // when one last began or ended to wait
	hurrying time.Time // since when probes hurry for them; zero: they don't
}

// account is what a group has been through.
type account struct {
	moves, resetMoves       moves  // ever, and at the last ResetCounts
	departed, resetDeparted checks // of members that were forgotten
	lastFailover            time.Time
	events                  []Event
}

// New makes a group of endpoints in their order of preference. Nothing runs before Start or the first Connect.
func New(opts Options, endpoints ...Endpoint) *Group {
	opts.HealthCheckInterval = orElse(opts.HealthCheckInterval, 5*time.Second)
	opts.HealthCheckTimeout = orElse(opts.HealthCheckTimeout, 5*time.Second)
	opts.FailoverRetryDelay = orElse(opts.FailoverRetryDelay, time.Second)
	if opts.DialLimit < 1 {
		opts.DialLimit = 4
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default
	}
	t := target(opts.TargetSessionAttrs)
	if t == "" {
		t = targetAny
	}
	g := &Group{
		opts:    opts,
		rules:   rules{target: t, random: opts.Random, failback: opts.Failback, failbackAfter: max(1, opts.FailbackAfter)},
		alone:   len(endpoints) < 2 || !opts.Failover,
		done:    make(chan struct{}),
		members: members{fence: fence{highest: make(map[string]newest)}},
		waiters: waiters{changed: make(chan struct{}), dials: make(map[*attempt]struct{})},
	}
	g.out.strays = &g.strays
	g.out.panicked = func(v any, stack []byte) {
		g.opts.Logger().Error("managedpg: panic in OnFailover", "pool", g.opts.Pool, "panic", fmt.Sprint(v), "stack", string(stack))
	}
	for i, e := range endpoints {
		h := &host{Endpoint: e, number: i}
		g.hosts = append(g.hosts, h)
		g.endpoints = append(g.endpoints, g.newMemberLocked(h, i, ""))
		g.numbers = i
	}
	g.fenceIfUsefulLocked()
	if len(g.endpoints) > 0 {
		g.current = g.endpoints[0]
	}
	return g
}

// unlock gives the lock back, and makes the callbacks that are due.
func (g *Group) unlock() {
	g.mu.Unlock()
	g.out.deliver()
}

// logLocked writes a record, without the lock and in order.
func (g *Group) logLocked(level slog.Level, msg string, attrs ...any) {
	attrs = append([]any{"pool", g.opts.Pool}, attrs...)
	g.out.tell(func() { g.opts.Logger().Log(context.Background(), level, msg, attrs...) })
}

// Route is where a dial is to lead.
type Route struct {
	// Member is the number of the endpoint, or of its address, by which CallFailed and the callbacks name it.
	Member int
	// Endpoint says which of those given to New it belongs to.
	Endpoint int
	// Name is the endpoint's, with the address if it has several.
	Name string
	// Address is to be dialled in place of the endpoint's host, if it isn't empty.
	Address string
	// LookupErr is why there is no address though there should be one: what the lookup met.
	LookupErr error
	// Signals are for the connections that lead there. Connect adds one that it has made to Load.
	Signals *evidence.Signals
	// Moves says that the address may lead to a server that is to be fenced, so that each connection must tell Admit which
	// it leads to, for one round trip at its dial: the address has shown servers of one system on different timelines, or its
	// server was promoted once, so that there may be an old primary, and is one that can be written to, or that is to be; or it is
	// one that was in trouble since it was seen, and may have been promoted meanwhile, as Patroni does after a crash.
	Moves bool
}

// routeLocked is the way to it.
func (g *Group) routeLocked(e *endpoint) Route {
	return Route{
		Member: e.number, Endpoint: e.host.number, Name: e.name, Address: e.address, LookupErr: e.host.err,
		Signals: &e.Signals, Moves: e.moves || g.fence.on && e.writes() && (e.state == Down || e.badAt.After(e.seenAt)),
	}
}

// memberLocked finds an endpoint by its number.
func (g *Group) memberLocked(number int) *endpoint {
	for _, e := range g.endpoints {
		if e.number == number {
			return e
		}
	}
	return nil
}

// Current is the number of the endpoint that new connections go to; false when none is usable.
func (g *Group) Current() (int, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current == nil {
		return 0, false
	}
	return g.current.number, g.lostAt.IsZero()
}

// CallFailed is evidence from a call on a connection to the endpoint: it was lost, ended by the server, ran into its
// deadline unanswered, or met 25006 outside a transaction declared READ ONLY. Errors that say nothing about the endpoint
// do no harm. The endpoint is probed at once, by one probe at a time, whatever the number of calls.
func (g *Group) CallFailed(member int, err error) {
	effect := effectOf(fromCall, evidence.Of(err))
	if effect == nothing {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	e := g.memberLocked(member)
	if g.closed || e == nil {
		return
	}
	if effect == suspectNow {
		e.suspectLocked()
		g.settleLocked()
	}
	g.pokeLocked(e)
}

// crowdedLocked: it answers, and nobody gets in.
func (e *endpoint) crowdedLocked(err error) {
	e.upLocked()
	e.full, e.lastErr, e.good = true, err, 0
}

// ForgetTimelines makes fencing forget what it has seen, after a restore from a backup has brought a lower timeline back.
// The endpoints are probed anew.
func (g *Group) ForgetTimelines() {
	g.mu.Lock()
	defer g.unlock()
	g.fence.forget()
	for _, e := range g.endpoints {
		e.Timeline, e.SystemID = 0, ""
		g.pokeLocked(e)
	}
	g.logLocked(slog.LevelWarn, "managedpg: timelines forgotten")
	g.settleLocked()
}

// suspectLocked notes that it may be in trouble. Of one that is down nothing new is said by that: it may be of a session from before.
func (e *endpoint) suspectLocked() {
	switch e.state {
	case Up, Unknown, Suspect:
		e.state, e.badAt = Suspect, time.Now()
	}
}

// upLocked: a probe or dial succeeded.
func (e *endpoint) upLocked() {
	e.state, e.silent, e.full, e.lastErr = Up, false, false, nil
	e.fails, e.unanswered, e.stuckAt = 0, 0, 0
	e.Hung.Store(false)
}

// downLocked: a probe or dial met nobody.
func (g *Group) downLocked(e *endpoint, err error) {
	e.state, e.silent, e.full, e.lastErr = Down, false, false, err
	e.good = 0
	e.verdicts++
	e.Hung.Store(evidence.Silence(err))
}

// refusedLocked: it is alive and won't have us.
func (g *Group) refusedLocked(e *endpoint, err error) {
	if e.state != Misconfigured {
		g.logLocked(slog.LevelError, "managedpg: endpoint is misconfigured", "endpoint", e.name, "error", redact(err.Error()))
	}
	e.state, e.silent, e.full, e.lastErr = Misconfigured, false, false, err
	e.Hung.Store(false)
	e.good, e.fails, e.unanswered, e.stuckAt = 0, 0, 0, 0
}

// overtakenLocked says of a dial's or probe's answer that it contradicts what another one has seen since this one began. It may be the
// older one, from before a promotion, and come late: only one that is asked from now on can tell.
func (e *endpoint) overtakenLocked(began time.Time, o Observation, t target) bool {
	return e.seenAt.After(began) && (t.admits(o) != e.admitted || o.standby() != e.standby() || newer(e.Observation, o))
}

// newer says that both can be written to, and the first on a newer timeline of the same system.
func newer(a, b Observation) bool {
	return a.known() && b.known() && a.writes() && b.writes() && a.SystemID == b.SystemID && a.Timeline > b.Timeline
}

// doubtLocked keeps of an answer that may be older than what is known since it was asked for only that there is such a timeline. Where that is newer than
// the endpoint's own, it is the endpoint's: else that would be fenced for what it shows itself.
func (g *Group) doubtLocked(e *endpoint, began time.Time, o Observation) {
	if g.fence.see(e.name, o); newer(o, e.Observation) || o.known() && o.Timeline > e.Timeline && !e.seenAt.After(began) {
		g.observeLocked(e, o)
	}
}

// observeLocked takes an observation as the endpoint's.
func (g *Group) observeLocked(e *endpoint, o Observation) {
	if o.Role == "" {
		o.Role = RoleUnknown
	}
	g.fence.see(e.name, o)
	before := e.Observation
	e.Observation, e.seen, e.seenAt = o, true, time.Now()
	if before.Recovery == InRecovery && o.Recovery == NotInRecovery {
		e.mixed, e.replayed = true, before.Timeline
	}
	if o.Recovery == NotInRecovery && e.replayed > 0 && o.Timeline > e.replayed {
		e.mixed = false // it was promoted, which begins a timeline
	}
	changed := before.known() && before.SystemID == o.SystemID && before.Timeline != o.Timeline
	if g.fence.on && o.known() && (changed || (g.rules.target.wantsWriter() || o.writes()) && o.Timeline > firstTimeline) {
		e.moves = true
	}
	// No server writes two timelines without a restart, so this is another one than before at the same address.
	if g.fence.on && newer(o, before) {
		g.dropLocked(e, Moved, o.Timeline, fmt.Sprintf("it leads to timeline %d now, to %d before", o.Timeline, before.Timeline))
	}
}
