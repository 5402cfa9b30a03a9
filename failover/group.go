package failover

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of the histories kept.
const (
	keptEvents = 50
	keptChecks = 20
)

// Endpoint is a server as the group sees it.
type Endpoint struct {
	// Name is host:port/dbname, without secrets.
	Name string
	// Probe asks the server for its role, timeline and system identifier, in one round trip. For each member it is called
	// by one goroutine at a time, has HealthCheckTimeout, and must return when its context ends. An error counts against the
	// server, so a probe that keeps a connection dials anew before it reports that one as lost. nil: never probed.
	Probe func(ctx context.Context, to Route) (Observation, error)
	// Lookup gives the addresses of the endpoint's host, each of a server of its own. When there are several, each is asked,
	// remembered and judged like an endpoint of its own: it is a member of the group. nil: it is one server.
	Lookup func(ctx context.Context) ([]string, error)
	// Note is what else Health is to say of it; "" for nothing. It must be quick. nil: nothing ever.
	Note func() string
}

// Options are what a group needs to know of its configuration. The keys are explained in driver.Config. Callbacks may be
// nil; they are called one at a time, in the order of what happened, without a lock held.
type Options struct {
	// Pool is the pool's name, for logs and errors.
	Pool string
	// TargetSessionAttrs is libpq's. Empty: any.
	TargetSessionAttrs string
	// Fencing keeps from servers that a newer timeline was seen of.
	Fencing bool
	// Failover allows any but the first endpoint to be used.
	Failover bool
	// Random spreads the connections over all endpoints that are as fit as the best one, unless a writer is wanted.
	Random bool
	// Failback returns to a better endpoint after FailbackAfter (at least 1) good probes in a row.
	Failback      bool
	FailbackAfter int

	// MaxReplicationLag is how far behind a standby's replay may be; one that is farther is used only when no other is usable, and with
	// prefer-standby not before the primary. 0: no limit.
	MaxReplicationLag time.Duration

	// HealthCheck runs the probes. Without it only dials and calls tell about the endpoints, an endpoint that went down
	// is tried again only when no other is usable, and there is no failback but by hand.
	HealthCheck bool
	// HealthCheckInterval is the time between two probes of an endpoint that is up. 0: 5s.
	HealthCheckInterval time.Duration
	// HealthCheckTimeout is the limit of a probe. 0: 5s.
	HealthCheckTimeout time.Duration

	// FailoverTimeout is how long Connect waits for a usable endpoint. A dial already begun may end later. 0: it makes
	// one round over the endpoints and doesn't wait.
	FailoverTimeout time.Duration
	// FailoverRetryDelay is the wait between two rounds, jittered. 0: 1s.
	FailoverRetryDelay time.Duration
	// FailoverRetryAttempts is how many rounds Connect makes before it fails earlier. 0: as many as fit.
	FailoverRetryAttempts int
	// ConnectTimeout is the limit of one dial. 0: none but the context's.
	ConnectTimeout time.Duration
	// DialLimit is how many dials to one endpoint are under way at a time. Below 1: 4.
	DialLimit int

	// Logger is asked at each record. nil: slog.Default.
	Logger func() *slog.Logger
	// OnFailover is told of failovers and failbacks, by a goroutine of its own, so that it may take its time.
	OnFailover func(Event)

	// Drop: the member's connections must go now, whoever uses them, that lead to a server which could write on a timeline
	// below the given one, or of which that isn't known. The reason is a *DropError of kind Fenced or Moved.
	Drop func(member int, below int64, reason error)
	// Drain: the member's free connections must go now, the others when they are checked in: another endpoint is used, or
	// the server has changed its role. Calls on it are left alone.
	Drain func(member int)
	// Shed: others have too few connections. So many of the member's free ones must be closed now, and those that are missing when
	// they are checked in; see Route.Surplus.
	Shed func(member, n int)
	// InUse says that there are connections to the member. It is asked of one whose address its name doesn't have any more:
	// once there are none it is forgotten, of which Gone tells.
	InUse func(member int) bool
	Gone  func(member int)
	// Stuck: the sockets of calls that have heard nothing since then must be closed: two probes were not answered since,
	// and another endpoint is usable. It is called again after each further probe without an answer. The reason is a
	// *DropError of kind Hung.
	Stuck func(member int, since time.Time, reason error)
}

// Group is the endpoints of one pool: what is known of each, and which one is used.
//
// Evidence comes in by Connect (dials), CallFailed (calls) and the monitor (probes). Each changes what is known of one
// endpoint and then calls settle, the only place where consequences are drawn: who is fenced, which endpoint is current,
// which connections have to go, whom to wake.
type Group struct {
	opts  Options
	rules rules
	alone bool // only one endpoint, of whatever number of members, can ever be used: nothing to wait for
	hosts []*host

	started atomic.Bool
	done    chan struct{} // closed by Close
	running sync.WaitGroup

	// mu guards what follows, and the endpoints' fields that say so. It is held for short, never during a callback, a
	// dial or a probe; it is given back by unlock, which then makes the callbacks that are due.
	mu     sync.Mutex
	closed bool
	fence  fence
	// endpoints are the group's members: in the configured order, those of one host in the resolver's.
	endpoints []*endpoint
	numbers   int           // the last that a member was given
	current   *endpoint     // the one used, or the last one that was; nil if there is none at all
	lostAt    time.Time     // since when none is usable; zero while one is
	lostWhy   string        // why the one used then no longer was
	settled   bool          // a current endpoint has been seen to work
	twoSaid   bool          // two writers have been logged
	changed   chan struct{} // closed, and replaced, when what Connect waits for may have come
	dials     map[*attempt]struct{}
	waiting   int       // checkouts that wait for a usable endpoint
	waitedAt  time.Time // when one last began or ended to wait
	hurrying  time.Time // since when probes hurry for them; zero: they don't
	owed      int       // connections that are to be closed or were, by shed, and that no dial has made up for yet

	calls      []func() // Drop, Drain, Stuck and cancellations that are due
	delivering bool     // a goroutine is at it
	news       []func() // log records and OnFailover
	telling    bool     // a goroutine is at it
	loose      int      // goroutines in code that isn't ours: probes, and the one that tells the news
	allQuiet   chan struct{}

	moves, resetMoves       moves  // ever, and at the last ResetCounts
	departed, resetDeparted checks // of members that were forgotten
	lastFailover            time.Time
	events                  []Event
}

// endpoint is what is known of one.
type endpoint struct {
	number  int
	host    *host
	watched bool // the monitor probes it

	epoch   atomic.Uint64
	hung    atomic.Bool   // see Route
	load    atomic.Int64  // see Route
	surplus atomic.Int64  // see Route
	slots   chan struct{} // one for each dial under way
	probing chan struct{} // holds one while a probe is under way
	poked   chan struct{} // tells the monitor that due has changed
	left    chan struct{} // closed when it is forgotten

	// What follows is guarded by Group.mu.
	candidate
	name     string    // the host's, and the address if it is one of several
	address  string    // that is dialled in place of the host's name; empty: none is known
	gone     bool      // its address isn't the name's any more; it is barred then
	missed   int       // answers in a row without its address
	missedAt time.Time // when the first of those came
	admitted bool      // its role will do
	reviewed Recovery  // its Recovery when settle last looked
	was      bool      // usable when settle last looked
	shown    State     // its state when settle last looked
	seen     bool      // its Observation is one
	lent     bool      // connections to it may exist
	fresh    bool      // connections of its present epoch may exist
	shares   bool      // connections are to be spread over it
	coming   int       // checkouts that are on their way to it
	moves    bool      // see Route
	verdicts int       // how often it was found down
	revived  int       // how often it became usable, or was cleared of suspicion
	lastErr  error     // the last failed dial or probe; nil while it is up

	due         time.Time     // when the monitor probes it next
	began       time.Time     // when the last probe began
	dialSaw     time.Time     // when a dial's observation was taken in last
	again       bool          // evidence came while a probe was under way
	calm        int           // probes in a row that were asked for by evidence and found nothing
	fails       int           // failed probes in a row
	unanswered  int           // probes in a row that got no answer
	silentSince time.Time     // when the first of those began
	stuckAt     int           // how many they were when Stuck was last called
	dialFailed  chan struct{} // closed, and replaced, when a dial finds it down
	scout       chan struct{} // closed when a dial ends; nil while none has its head start
	scoutAt     time.Time     // when that began
	dialErr     error         // what that dial met

	checks, resetChecks checks // ever, and at the last ResetCounts
	lag                 lag
	response            time.Duration
	lastCheck           time.Time
	history             []Check
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
		fence:   fence{highest: make(map[string]newest)},
		changed: make(chan struct{}),
		dials:   make(map[*attempt]struct{}),
	}
	for i, e := range endpoints {
		h := &host{Endpoint: e, number: i}
		g.hosts = append(g.hosts, h)
		g.endpoints = append(g.endpoints, g.newMember(h, i, ""))
		g.numbers = i
	}
	g.fenceIfUseful()
	if len(g.endpoints) > 0 {
		g.current = g.endpoints[0]
	}
	return g
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
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
	// Epoch changes when connections made before are no longer to be used: the endpoint went down, lost its role, was
	// fenced, or was left for a better one. Load it before the dial, keep that with the connection, and compare. It is only
	// to be read.
	Epoch *atomic.Uint64
	// Hung is true while probes and dials get no answer: a connection that there is already may be as silent, so ask before it is
	// used again. It is only to be read.
	Hung *atomic.Bool
	// Load is how many connections lead there. Connect adds one that it has made; whoever closes it takes it off.
	Load *atomic.Int64
	// Surplus is how many of the connections that lead there are to be closed, because others have too few. Whoever checks one in,
	// or finds it free, takes one off and closes it.
	Surplus *atomic.Int64
	// Moves says that the address may lead to a server that is to be fenced, so that each connection must tell Admit which
	// it leads to, for one round trip at its dial: the address has shown servers of one system on different timelines, or it
	// is a writer that is wanted and its server was promoted once, so that there may be an old primary.
	Moves bool
}

// route needs the lock.
func (e *endpoint) route() Route {
	return Route{
		Member: e.number, Endpoint: e.host.number, Name: e.name, Address: e.address, LookupErr: e.host.err,
		Epoch: &e.epoch, Hung: &e.hung, Load: &e.load, Surplus: &e.surplus, Moves: e.moves,
	}
}

// member finds an endpoint by its number. It needs the lock.
func (g *Group) member(number int) *endpoint {
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
	effect := effectOf(fromCall, Classify(err))
	if effect == nothing {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	e := g.member(member)
	if g.closed || e == nil {
		return
	}
	if effect == suspectNow {
		e.suspect()
		g.settle()
	}
	g.poke(e)
}

// crowded: it answers, and nobody gets in. It needs the lock.
func (e *endpoint) crowded(err error) {
	e.up()
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
		g.poke(e)
	}
	g.log(slog.LevelWarn, "managedpg: timelines forgotten")
	g.settle()
}

// suspect needs the lock.
func (e *endpoint) suspect() {
	if e.state == Up || e.state == Unknown {
		e.state = Suspect
	}
}

// up: a probe or dial succeeded. It needs the lock.
func (e *endpoint) up() {
	e.state, e.silent, e.full, e.lastErr = Up, false, false, nil
	e.fails, e.unanswered, e.stuckAt = 0, 0, 0
	e.hung.Store(false)
}

// down: a probe or dial met nobody. It needs the lock.
func (g *Group) down(e *endpoint, err error) {
	e.state, e.silent, e.full, e.lastErr = Down, false, false, err
	e.good = 0
	e.verdicts++
	e.hung.Store(silence(err))
}

// refused: it is alive and won't have us. It needs the lock.
func (g *Group) refused(e *endpoint, err error) {
	if e.state != Misconfigured {
		g.log(slog.LevelError, "managedpg: endpoint is misconfigured", "endpoint", e.name, "error", redact(err.Error()))
	}
	e.state, e.silent, e.full, e.lastErr = Misconfigured, false, false, err
	e.hung.Store(false)
	e.good, e.fails, e.unanswered, e.stuckAt = 0, 0, 0, 0
}

// observe takes an observation as the endpoint's. It needs the lock.
func (g *Group) observe(e *endpoint, o Observation) {
	if o.Role == "" {
		o.Role = RoleUnknown
	}
	g.fence.see(e.name, o)
	before := e.Observation
	e.Observation, e.seen = o, true
	changed := before.known() && before.SystemID == o.SystemID && before.Timeline != o.Timeline
	if g.fence.on && o.known() && (changed || g.rules.target.wantsWriter() && o.Timeline > firstTimeline) {
		e.moves = true
	}
	// No server writes two timelines without a restart, so this is another one than before at the same address.
	if g.fence.on && before.known() && o.known() && before.writes() && o.writes() &&
		before.SystemID == o.SystemID && before.Timeline < o.Timeline {
		g.drop(e, Moved, o.Timeline, fmt.Sprintf("it leads to timeline %d now, to %d before", o.Timeline, before.Timeline))
	}
}

// settle draws the consequences of whatever has changed. It needs the lock.
func (g *Group) settle() {
	woken := false
	for _, e := range g.endpoints {
		woken = g.review(e) || woken
	}
	cs := g.candidates()
	next, why := g.rules.choose(cs, slices.Index(g.endpoints, g.current))
	switch {
	case next < 0:
		if g.lostAt.IsZero() {
			g.lostAt, g.lostWhy = time.Now(), g.whyNot(g.current)
			// Of misconfigured ones that was said, one by one.
			if slices.ContainsFunc(g.endpoints, func(e *endpoint) bool { return e.state != Misconfigured }) {
				g.log(slog.LevelWarn, "managedpg: no endpoint is usable", "last", g.current.name, "reason", g.lostWhy)
			}
			woken = true
		}
		if g.waiting > 0 {
			g.hasten()
		}
	default:
		e := g.endpoints[next]
		if e != g.current {
			g.move(e, why)
			woken = true
		}
		g.settled = g.settled || e.state == Up
		g.lostAt, g.hurrying = time.Time{}, time.Time{}
		g.share(cs)
		g.tidy()
	}
	g.warnOfTwo(cs)
	if woken {
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// candidates is what the choice goes by. It needs the lock.
func (g *Group) candidates() []candidate {
	cs := make([]candidate, len(g.endpoints))
	for i, e := range g.endpoints {
		cs[i] = e.candidate
	}
	return cs
}

// review sees to one endpoint's connections after a change, and says whether checkouts should look again. It needs the
// lock.
func (g *Group) review(e *endpoint) (changed bool) {
	wasAdmitted, wasFenced, was := e.admitted, e.fenced, e.reviewed
	e.reviewed = e.Recovery
	e.admitted = g.rules.target.admits(e.Observation)
	e.fenced = g.fence.shuts(e.Observation)
	usable := e.candidate.usable(g.rules.target)
	switch {
	case e.fenced && !wasFenced:
		g.log(slog.LevelWarn, "managedpg: endpoint is fenced", "endpoint", e.name, "reason", g.whyNot(e))
		g.drop(e, Fenced, g.fence.highest[e.SystemID].timeline, g.whyNot(e))
	case !e.admitted && wasAdmitted && !(was == NotInRecovery && e.Recovery == InRecovery):
		// A server that has changed its role keeps its sessions. No primary becomes a standby without a restart, which ends
		// them: then this is another server than the one that they lead to, behind the same address.
		g.drain(e)
	case g.rules.target == targetPreferStandby && was == NotInRecovery && e.Recovery == InRecovery:
		// For the same reason its connections lead to a primary, which isn't what is preferred here.
		g.drain(e)
	}
	if !usable {
		e.good = 0
	}
	if usable && (!e.was || e.state == Up && e.shown == Suspect) {
		e.revived++
	}
	changed = usable != e.was || e.state != e.shown
	e.was, e.shown = usable, e.state
	return changed
}

// move makes another endpoint the current one. Without a why the one used before has become unusable. It needs the lock.
func (g *Group) move(to *endpoint, why string) {
	now := time.Now()
	from := g.current
	forced := why == ""
	kind := Failback
	if forced || !g.lostAt.IsZero() {
		kind = Failover
	}
	switch {
	case !g.lostAt.IsZero():
		why = g.lostWhy
	case forced:
		why = g.whyNot(from)
	}
	// Finding out at the start that the first endpoint has another role than the one wanted is no failover.
	// Nor is going from one address to the next.
	// Nor is finding out that another one is fitter, where connections are spread.
	quiet := !forced && g.rules.balances() && g.lostAt.IsZero() && g.moves.failovers == 0 ||
		forced && !g.settled && (from.state != Down && from.state != Misconfigured || from.host == to.host)
	e := Event{Kind: kind, At: now, From: from.name, To: to.name, Reason: why}
	if !g.lostAt.IsZero() {
		e.Duration = now.Sub(g.lostAt)
	}
	g.current = to
	if !quiet {
		g.record(e)
	}
}

// record counts an event and tells of it. It needs the lock.
func (g *Group) record(e Event) {
	level := slog.LevelInfo
	if e.Kind == Failover {
		level = slog.LevelWarn
		g.moves.failovers++
		g.lastFailover = e.At
	} else {
		g.moves.failbacks++
	}
	g.events = appendBounded(g.events, e, keptEvents)
	g.log(level, "managedpg: "+string(e.Kind), "from", e.From, "to", e.To, "reason", e.Reason, "duration", e.Duration)
	if tell := g.opts.OnFailover; tell != nil {
		g.tell(func() { tell(e) })
	}
}

// tidy drains the endpoints that are not current and have connections all the same: those of before a failover or a failback, and
// of checkouts that went elsewhere while the current one was suspect; and has stuck calls on a hung one closed. A suspect
// current endpoint may be about to be left, so connections elsewhere are kept until that is settled; those to a full server
// couldn't be had again. It needs the lock.
func (g *Group) tidy() {
	for _, e := range g.endpoints {
		switch {
		case e.shares:
		case e.state == Down && e.unanswered >= 2 && e.unanswered != e.stuckAt:
			e.stuckAt = e.unanswered
			g.stuck(e)
		case g.rules.balances() && e.state == Suspect:
		case e.fresh && !e.full && g.current.state == Up:
			g.drain(e)
		}
	}
}

// warnOfTwo says once that two servers can be written to on one timeline. It needs the lock.
func (g *Group) warnOfTwo(cs []candidate) {
	if g.twoSaid {
		return
	}
	for i, a := range cs {
		for j, b := range cs[:i] {
			if a.state == Up && b.state == Up && sameWriter(a, b) {
				g.twoSaid = true
				g.log(slog.LevelError, "managedpg: two endpoints accept writes on one timeline; unless both lead to one server the data is splitting",
					"endpoint", g.endpoints[j].name, "other", g.endpoints[i].name, "timeline", a.Timeline, "using", g.current.name)
				return
			}
		}
	}
}

// drop ends an endpoint's connections. It needs the lock.
func (g *Group) drop(e *endpoint, kind DropKind, below int64, detail string) {
	e.epoch.Add(1)
	e.fresh = false
	if lent, f := e.lent, g.opts.Drop; lent && f != nil {
		reason := &DropError{Endpoint: e.name, Kind: kind, Detail: detail}
		g.call(func() { f(e.number, below, reason) })
	}
}

// drain ends an endpoint's connections as they are checked in. It needs the lock.
func (g *Group) drain(e *endpoint) {
	e.epoch.Add(1)
	e.fresh = false
	if f := g.opts.Drain; e.lent && f != nil {
		g.call(func() { f(e.number) })
	}
}

// stuck has the calls closed that hang on an endpoint. It needs the lock.
func (g *Group) stuck(e *endpoint) {
	if f := g.opts.Stuck; e.lent && f != nil {
		since := e.silentSince
		reason := &DropError{Endpoint: e.name, Kind: Hung, Detail: fmt.Sprintf("%d probes in a row were not answered", e.unanswered)}
		g.call(func() { f(e.number, since, reason) })
	}
}

// whyNot says why an endpoint isn't usable; "" if it is. It needs the lock.
func (g *Group) whyNot(e *endpoint) string {
	switch {
	case e.gone:
		return "its name doesn't have this address any more"
	case e.barred:
		return "failover is off"
	case e.fenced:
		return g.whyFenced(e.Observation)
	case e.state == Down || e.state == Misconfigured:
		why := string(e.state)
		if e.lastErr != nil {
			why += ": " + redact(e.lastErr.Error())
		}
		return why
	case !g.rules.target.admits(e.Observation):
		return g.whyNotAdmitted(e.Observation)
	case e.lagging:
		return g.whyLagging(e)
	case e.full:
		return "no room"
	default:
		return ""
	}
}

func (g *Group) whyFenced(o Observation) string {
	n := g.fence.highest[o.SystemID]
	return fmt.Sprintf("on timeline %d, while %s was seen on timeline %d (after a restore from a backup: Pool.ForgetTimelines)",
		o.Timeline, n.endpoint, n.timeline)
}

func (g *Group) whyNotAdmitted(o Observation) string {
	is := string(o.Role)
	switch o.Recovery {
	case InRecovery:
		is = "a standby"
	case NotInRecovery:
		is = "a " + is + " primary"
	}
	return fmt.Sprintf("it is %s, wanted is %s", is, g.rules.target)
}

// call queues a callback. It needs the lock.
func (g *Group) call(f func()) { g.calls = append(g.calls, f) }

// unlock gives the lock back and makes the callbacks that are due, unless another goroutine is at it: one at a time, in
// order.
func (g *Group) unlock() {
	if g.delivering {
		g.mu.Unlock()
		return
	}
	g.delivering = true
	for len(g.calls) > 0 {
		f := g.calls[0]
		g.calls = g.calls[1:]
		g.mu.Unlock()
		f()
		g.mu.Lock()
	}
	g.delivering = false
	g.mu.Unlock()
}

// log needs the lock; the record is written without it, in order.
func (g *Group) log(level slog.Level, msg string, attrs ...any) {
	attrs = append([]any{"pool", g.opts.Pool}, attrs...)
	g.tell(func() { g.opts.Logger().Log(context.Background(), level, msg, attrs...) })
}

// tell queues news for the goroutine that tells them, and starts it if there is none. It needs the lock.
func (g *Group) tell(f func()) {
	g.news = append(g.news, f)
	if !g.telling {
		g.telling = true
		g.loosen(g.teller)
	}
}

func (g *Group) teller() {
	g.mu.Lock()
	for len(g.news) > 0 {
		f := g.news[0]
		g.news = g.news[1:]
		g.mu.Unlock()
		g.contained(f)
		g.mu.Lock()
	}
	g.telling = false
	g.mu.Unlock()
}

// contained keeps a panic of OnFailover from ending the program.
func (g *Group) contained(f func()) {
	defer func() {
		if v := recover(); v != nil {
			g.opts.Logger().Error("managedpg: panic in OnFailover", "pool", g.opts.Pool, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	f()
}

func appendBounded[T any](list []T, item T, limit int) []T {
	if len(list) == limit {
		copy(list, list[1:])
		list[limit-1] = item
		return list
	}
	return append(list, item)
}
