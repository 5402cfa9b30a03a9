package leak

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what a [Tracker] watches for and whom it tells. Callbacks come from the tracker's own goroutine, one at a
// time and without a lock held; as long as one doesn't return, nothing further is reported or reclaimed.
type Options struct {
	// Pool is the pool's name in reports.
	Pool string
	// Base is the instant that the durations given to CheckOut and CheckIn count from; zero: that of [New]. It needs
	// its monotonic reading.
	Base time.Time
	// Threshold is how long a connection may be held; longer is reported. 0: nothing is.
	Threshold time.Duration
	// ReclaimAfter is how long a connection may be held before its [Holder] is asked to take it back. 0: never.
	ReclaimAfter time.Duration
	// StackDepth is the number of frames walked at each checkout, database/sql's included; 0: none. A stack that is still
	// inside an ORM then is walked further, so that an ORM's depth doesn't hide its caller.
	StackDepth int
	// SkipPackages are import paths of packages, subpackages included, that are not the caller of a checkout; besides
	// database/sql, managedpg itself, sqlx, ent (generated code too), GORM, bun and others that wrap database/sql.
	SkipPackages []string
	// Logger is asked for whenever there is something to log; nil: slog.Default.
	Logger func() *slog.Logger
	// OnLeak is told of each checkout held past Threshold, once, and of one that was taken back before that. A panic in it
	// is logged.
	OnLeak func(Report)
}

// Holder is a connection whose checkouts can be taken back.
type Holder interface {
	// Reclaim takes back the checkout with the given number, and returns whether it did. It must not when that checkout has ended meanwhile,
	// or when a call is in progress on it: it is asked again then. It may call Remove on the slot. The report is for the error that the
	// late user will get.
	Reclaim(checkout uint64, r Report) bool
}

// Tracker follows the checkouts of one pool. It has a goroutine while it has slots, which sleeps until a checkout in
// force could pass a limit; there is nothing to close.
type Tracker struct { // More than 15 fields: what each lock guards stands below it.
	options Options
	base    time.Time
	callers *callers
	journal journal
	usage   usage

	total, taken           atomic.Int64 // ever
	resetTotal, resetTaken atomic.Int64 // what they were at the last Reset

	// scanning is held for the length of a Scan, callbacks included, and guards the journal. It comes before mu.
	scanning sync.Mutex

	// mu guards what follows and excludes those who look into slots from each other. No callback is called under it, and
	// no checkout or check-in takes it.
	mu      sync.Mutex
	slots   []*Slot
	running bool

	// backMu guards back. CheckIn takes it for a checkout that was reported, and for no other.
	backMu sync.Mutex
	back   []returned

	wake chan struct{} // of capacity 1
}

// New returns a tracker without slots.
func New(o Options) *Tracker {
	if o.Base.IsZero() {
		o.Base = time.Now()
	}
	if o.Logger == nil {
		o.Logger = slog.Default
	}
	return &Tracker{
		options: o,
		base:    o.Base,
		callers: newCallers(o.SkipPackages),
		journal: journal{pool: o.Pool, logger: o.Logger, sites: make(map[string]*site)},
		wake:    make(chan struct{}, 1),
	}
}

// Now is the time since Options.Base, for CheckOut and CheckIn.
func (t *Tracker) Now() time.Duration { return time.Since(t.base) }

// Slot makes the place of a physical connection that was just opened; Remove ends it. The holder is the connection; nil: nothing is taken
// back.
func (t *Tracker) Slot(id uint64, endpoint string, backendPID uint32, holder Holder) *Slot {
	s := &Slot{tracker: t, id: id, endpoint: endpoint, pid: backendPID, holder: holder, untilSample: nextSample()}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.index = len(t.slots)
	t.slots = append(t.slots, s)
	if len(t.slots) == 1 {
		register(t)
	}
	if !t.running && t.limit() > 0 {
		t.running = true
		go t.run()
	}
	return s
}

func (t *Tracker) remove(s *Slot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.index < 0 {
		return
	}
	last := len(t.slots) - 1
	t.slots[s.index] = t.slots[last]
	t.slots[s.index].index = s.index
	t.slots[last] = nil
	t.slots = t.slots[:last]
	s.index = -1
	if last == 0 {
		unregister(t)
		t.wakeUp()
	}
}

func (t *Tracker) wakeUp() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// limit is how long a checkout may be held before it counts as a leak, 0 for ever.
func (t *Tracker) limit() time.Duration {
	if t.options.Threshold > 0 {
		return t.options.Threshold
	}
	return max(t.options.ReclaimAfter, 0)
}

// Leaks returns the checkouts that are held past the threshold now, the longest first.
func (t *Tracker) Leaks() []Report {
	return t.reports(t.isLeak, -1)
}

// Leaked is the number of checkouts that are held past the threshold now.
func (t *Tracker) Leaked() int {
	now := t.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, s := range t.slots {
		if st := state(s.state.Load()); st != 0 && t.isLeak(st, now) {
			n++
		}
	}
	return n
}

func (t *Tracker) isLeak(st state, now time.Duration) bool {
	limit := t.limit()
	return limit > 0 && st&exempt == 0 && now-st.since() >= limit
}

// Longest returns the n checkouts that are held for longest now, whatever their age, the longest first.
func (t *Tracker) Longest(n int) []Report {
	return t.reports(func(state, time.Duration) bool { return true }, n)
}

// Total is the number of checkouts reported since the start or Reset.
func (t *Tracker) Total() int64 {
	before := t.resetTotal.Load() // first: it is never more than what is read after it
	return t.total.Load() - before
}

// Reclaimed is the number of checkouts taken back since the start or Reset.
func (t *Tracker) Reclaimed() int64 {
	before := t.resetTaken.Load()
	return t.taken.Load() - before
}

// Ever is what Total and Reclaimed would be without any Reset.
func (t *Tracker) Ever() (total, reclaimed int64) { return t.total.Load(), t.taken.Load() }

// Reset sets Total and Reclaimed to 0; what is held stays tracked.
func (t *Tracker) Reset() {
	t.resetTotal.Store(t.total.Load())
	t.resetTaken.Store(t.taken.Load())
}

// reports are those of the n longest checkouts that want takes, of all for n < 0.
func (t *Tracker) reports(want func(state, time.Duration) bool, n int) []Report {
	now := t.Now()
	snapshots := t.snapshots(now, want, n)
	if len(snapshots) == 0 {
		return nil
	}
	reports := make([]Report, len(snapshots))
	for i := range snapshots {
		reports[i] = t.report(&snapshots[i], now)
	}
	return reports
}

// snapshot is a copy of a checkout in force.
type snapshot struct {
	slot      *Slot
	state     state
	number    uint64
	labels    any
	stack     []uintptr
	named     *named // if its number is that of the checkout
	reclaimed bool
}

// named is what a report says of a checkout's stack. It is kept while the checkout lasts: a full pool names its longest
// holders in each of its errors. It isn't changed once it
// is made.
type named struct {
	number uint64
	caller string
	stack  []string
}

func (t *Tracker) snapshots(now time.Duration, want func(state, time.Duration) bool, n int) []snapshot {
	type candidate struct {
		state state
		slot  *Slot
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []candidate
	for _, s := range t.slots {
		st := state(s.state.Load())
		if st == 0 || !want(st, now) || n >= 0 && len(found) == n && (n == 0 || st >= found[n-1].state) {
			continue
		}
		c := candidate{st, s}
		if n < 0 {
			found = append(found, c)
			continue
		}
		at, _ := slices.BinarySearchFunc(found, c, func(a, b candidate) int { return int(min(max(a.state-b.state, -1), 1)) })
		if len(found) == n {
			found = found[:n-1]
		}
		found = slices.Insert(found, at, c)
	}
	if n < 0 {
		slices.SortFunc(found, func(a, b candidate) int { return int(min(max(a.state-b.state, -1), 1)) })
	}
	snapshots := make([]snapshot, 0, len(found))
	for _, c := range found {
		if snap, ok := c.slot.snapshot(c.state); ok {
			snapshots = append(snapshots, snap)
		}
	}
	return snapshots
}

// snapshot copies the checkout of the given state, unless it has ended. It is called with tracker.mu held.
func (s *Slot) snapshot(of state) (snapshot, bool) {
	stack := make([]uintptr, 0, max(deepStack, s.tracker.options.StackDepth)) // here, as a checkout might wait for it below
	s.reading.Store(true)
	defer s.reading.Store(false)
	st := state(s.state.Load())
	if !st.same(of) {
		return snapshot{}, false
	}
	c := &s.checkout
	return snapshot{s, st, c.number, c.labels, append(stack, c.stack.PCs()...), s.named, s.reclaimed.same(st)}, true
}

func (t *Tracker) report(snap *snapshot, now time.Duration) Report {
	s := snap.slot
	held := max(now-snap.state.since(), 0)
	r := Report{
		Pool:         t.options.Pool,
		ConnectionID: s.id,
		BackendPID:   s.pid,
		Endpoint:     s.endpoint,
		CheckedOutAt: time.Now().Round(0).Add(-max(t.Now()-snap.state.since(), 0)),
		Duration:     held,
		Labels:       labelMap(snap.labels),
		Reclaimed:    snap.reclaimed,
	}
	n := t.name(snap)
	r.Caller, r.Stack = n.caller, slices.Clone(n.stack)
	return r
}

func (t *Tracker) name(snap *snapshot) *named {
	if snap.named != nil && snap.named.number == snap.number {
		return snap.named
	}
	n := &named{number: snap.number}
	frames := framesOf(snap.stack)
	stack, caller := t.callers.find(frames)
	for _, f := range frames[stack:] {
		n.stack = append(n.stack, frameString(f))
	}
	if caller >= 0 {
		n.caller = frameString(frames[caller])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	snap.slot.named = n
	return n
}
