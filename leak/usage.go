package leak

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"
)

// UsageWindow is the time that [Tracker.Usage] looks back.
const UsageWindow = 5 * time.Minute

const (
	usagePeriod  = 10 * time.Second // what the window moves on by
	usagePeriods = int64(UsageWindow / usagePeriod)

	// usageInterval is the time held and waited of which one sample is taken on average. A pool of 8 connections that are never
	// free takes 800 samples a second.
	usageInterval = 10 * time.Millisecond
	// certain is how many samples a checkout must be worth to be counted as it is.
	certain = 64

	topAge = time.Second

	maxLines  = 1000 // stacks that are told apart; the time of further ones is counted without a caller
	maxLabels = 50   // of one line
)

// Usage is what one line of code has used of a pool's time: an estimate, from samples in proportion to the time that checkouts were
// held and waited for.
type Usage struct {
	// Caller is "file:line function", as in a Report. It is empty for checkouts whose stack isn't known.
	Caller string `json:"caller"`
	// Checkouts is how often it took a connection.
	Checkouts int64 `json:"checkouts"`
	// Held is how long it had connections, all together; in JSON in seconds.
	Held time.Duration `json:"held"`
	// Waited is how long its checkouts waited for one, all together; in JSON in seconds. It is 0 when database/sql governs the
	// pool, as a driver can't see that.
	// Waits in vain count too.
	Waited time.Duration `json:"waited"`
	// Longest is the longest that one checkout of it had a connection without a break; in JSON in seconds.
	Longest time.Duration `json:"longest"`
	// Now is how many connections it has now.
	Now int64 `json:"now"`
	// TimedOut is how many of its calls ended at their context's deadline, or were cancelled by the server (SQLSTATE 57014, as by
	// statement_timeout). Each is counted. It is of the line that made the call, which within a transaction may be another one than that which
	// took the connection. What ends while rows are being read is not seen.
	TimedOut int64 `json:"timed_out"`
	// Share is Held's part of the time held by all, 0..1.
	Share float64 `json:"share"`
	// Labels are the pprof labels of its contexts, those first that most of Held went to.
	Labels []LabelUsage `json:"labels,omitempty"`
}

// LabelUsage is the part of a line's time that was held under one pprof label.
type LabelUsage struct {
	Key   string  `json:"key"`
	Value string  `json:"value"`
	Share float64 `json:"share"` // of the line's Held, 0..1
}

// String is "61 % by orders.go:88 main.list".
func (u Usage) String() string {
	return fmt.Sprintf("%.0f %% by %s", 100*u.Share, cmp.Or(u.Caller, "an unknown caller"))
}

// MarshalJSON writes the durations in seconds.
func (u Usage) MarshalJSON() ([]byte, error) {
	type plain Usage
	return json.Marshal(struct {
		plain
		Held    float64 `json:"held"`
		Waited  float64 `json:"waited"`
		Longest float64 `json:"longest"`
	}{plain(u), u.Held.Seconds(), u.Waited.Seconds(), u.Longest.Seconds()})
}

// tally is a sum over checkouts. Samples stand for more than one, or for less.
type tally struct {
	checkouts, held, waited float64
	longest                 time.Duration // that one was held
	timedOut                int64         // not from samples
}

func (t *tally) add(o tally) {
	t.checkouts += o.checkouts
	t.held += o.held
	t.waited += o.waited
	t.longest = max(t.longest, o.longest)
	t.timedOut += o.timedOut
}

// window keeps the tallies of the last periods.
type window [usagePeriods]struct {
	period int64
	tally
}

func (w *window) add(period int64, what tally) {
	slot := &w[period%usagePeriods]
	if slot.period != period {
		slot.period, slot.tally = period, tally{}
	}
	slot.add(what)
}

// sum is of the periods that still count at the given one.
func (w *window) sum(at int64) (all tally) {
	for _, slot := range w {
		if slot.period > at-usagePeriods {
			all.add(slot.tally)
		}
	}
	return all
}

// line is a stack that took connections.
type line struct {
	stack  []uintptr
	caller string
	named  bool
	ever   tally
	recent window
	labels map[[2]string]*window
	next   *line // another stack with the same hash
}

// usage is a tracker's record of who used the pool.
type usage struct {
	// mu guards what follows. A check-in takes it for a sample, and for nothing else.
	mu    sync.Mutex
	lines map[uint64]*line
	count int
	rest  line // of stacks beyond maxLines

	top   []Usage // see TopUsage
	topAt time.Duration
}

func hash(stack []uintptr) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, pc := range stack {
		h = (h ^ uint64(pc)) * 1099511628211
	}
	return h
}

// findLocked is the stack's line, which it makes if there is room.
func (u *usage) findLocked(stack []uintptr) *line {
	h := hash(stack)
	for l := u.lines[h]; l != nil; l = l.next {
		if slices.Equal(l.stack, stack) {
			return l
		}
	}
	if u.count == maxLines || len(stack) == 0 {
		return &u.rest
	}
	if u.lines == nil {
		u.lines = make(map[uint64]*line)
	}
	l := &line{stack: slices.Clone(stack), next: u.lines[h]}
	u.lines[h] = l
	u.count++
	return l
}

func (u *usage) allLocked() []*line {
	all := []*line{&u.rest}
	for _, l := range u.lines {
		for ; l != nil; l = l.next {
			all = append(all, l)
		}
	}
	return all
}

// used takes a sample of the checkout that ends now, or none: the more likely the longer it was held and had waited. It belongs to
// whoever checks the slot in.
func (s *Slot) used(since, now time.Duration) {
	held, waited := now-since, s.waited
	s.waited = 0
	all := held + waited
	if s.untilSample -= all; s.untilSample > 0 {
		return
	}
	weight := 1.0
	if all < certain*usageInterval {
		n := 0
		for ; s.untilSample <= 0; n++ {
			s.untilSample += nextSample()
		}
		weight = float64(n) * float64(usageInterval) / float64(all)
	} else {
		s.untilSample = nextSample()
	}
	s.tracker.usage.add(&s.checkout, since, now, tally{checkouts: weight, held: weight * float64(held), waited: weight * float64(waited), longest: held})
}

// nextSample is the time until the next sample: exponentially distributed, as runtime's profiles have it, so that no rhythm of a
// program's falls in step with it.
func nextSample() time.Duration {
	return time.Duration(rand.ExpFloat64()*float64(usageInterval)) + 1
}

// add spreads what was used over the periods in which it was.
func (u *usage) add(c *checkout, since, now time.Duration, what tally) {
	last := int64(now / usagePeriod)
	first := max(int64(since/usagePeriod), last-usagePeriods+1)
	part := tally{held: what.held}
	if now > since {
		part.held *= float64(usagePeriod) / float64(now-since)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.findLocked(c.stack.PCs())
	l.ever.add(what)
	labels := l.labelsLocked(c.labels)
	in := func(period int64, t tally) {
		l.recent.add(period, t)
		for _, w := range labels {
			w.add(period, t)
		}
	}
	for period := first; period < last; period++ {
		piece := part
		if begun := since - time.Duration(period)*usagePeriod; begun > 0 {
			piece.held *= 1 - float64(begun)/float64(usagePeriod)
		}
		what.held -= piece.held
		in(period, tally{held: piece.held})
	}
	if elapsed := now - time.Duration(last)*usagePeriod; first < last {
		what.held = min(what.held, part.held*float64(elapsed)/float64(usagePeriod))
	}
	in(last, what)
}

// labelsLocked are the windows of a context's labels.
func (l *line) labelsLocked(set any) []*window {
	var windows []*window
	for key, value := range labelMap(set) {
		w := l.labels[[2]string{key, value}]
		if w == nil {
			if len(l.labels) == maxLabels {
				continue
			}
			if l.labels == nil {
				l.labels = make(map[[2]string]*window)
			}
			w = new(window)
			l.labels[[2]string{key, value}] = w
		}
		windows = append(windows, w)
	}
	return windows
}

// Usage says which lines of code used the pool's time during the last UsageWindow, those first that held connections for longest;
// what is held now counts too. It is empty when StackDepth is 0 and nothing was used.
func (t *Tracker) Usage() []Usage { return t.usageAt(t.Now()) }

// TopUsage is the first n of Usage, at most topAge old: an exhausted pool names them in each of its errors.
func (t *Tracker) TopUsage(n int) []Usage {
	now, u := t.Now(), &t.usage
	u.mu.Lock()
	top, at := u.top, u.topAt
	u.mu.Unlock()
	if top == nil || now-at > topAge {
		top = t.usageAt(now)
		u.mu.Lock()
		u.top, u.topAt = top, now
		u.mu.Unlock()
	}
	return slices.Clone(top[:min(n, len(top))])
}

func (t *Tracker) usageAt(now time.Duration) []Usage {
	type lineUse struct {
		tally
		labels map[[2]string]float64
		now    int64
	}
	byCaller := make(map[string]*lineUse)
	use := func(caller string) *lineUse {
		u := byCaller[caller]
		if u == nil {
			u = &lineUse{labels: make(map[[2]string]float64)}
			byCaller[caller] = u
		}
		return u
	}
	for _, snap := range t.snapshots(now, func(state, time.Duration) bool { return true }, -1) {
		u := use(t.name(&snap).caller)
		since := now - snap.state.since()
		held := float64(min(since, UsageWindow))
		u.add(tally{checkouts: 1, held: held, longest: since})
		u.now++
		for key, value := range labelMap(snap.labels) {
			u.labels[[2]string{key, value}] += held
		}
	}
	at := int64(now / usagePeriod)
	t.usage.mu.Lock()
	for _, l := range t.usage.allLocked() {
		sum := l.recent.sum(at)
		if sum == (tally{}) {
			continue
		}
		u := use(t.callerLocked(l))
		u.add(sum)
		for label, w := range l.labels {
			u.labels[label] += w.sum(at).held
		}
	}
	t.usage.mu.Unlock()

	total := 0.0
	for _, u := range byCaller {
		total += u.held
	}
	all := make([]Usage, 0, len(byCaller))
	for caller, u := range byCaller {
		one := Usage{Caller: caller, Checkouts: int64(u.checkouts + 0.5), Held: time.Duration(u.held), Waited: time.Duration(u.waited),
			Longest: u.longest, Now: u.now, TimedOut: u.timedOut}
		if total > 0 {
			one.Share = u.held / total
		}
		for label, held := range u.labels {
			if u.held > 0 && held > 0 {
				one.Labels = append(one.Labels, LabelUsage{label[0], label[1], min(1, held/u.held)})
			}
		}
		slices.SortFunc(one.Labels, func(a, b LabelUsage) int {
			return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
		})
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(b.Held, a.Held), cmp.Compare(a.Caller, b.Caller))
	})
	return all
}

// callerLocked is the line of code, found once.
func (t *Tracker) callerLocked(l *line) string {
	if !l.named {
		l.named, l.caller = true, t.callerOf(l.stack)
	}
	return l.caller
}

// usageGroups are what has been used since the start, for the profile managedpg.usage.
func usageGroups() []*group {
	var groups []*group
	for _, t := range openTrackers() {
		t.usage.mu.Lock()
		for _, l := range t.usage.allLocked() {
			if l.ever == (tally{}) {
				continue
			}
			var frames []runtime.Frame
			if frames = framesOf(l.stack); len(frames) > 0 {
				_, caller := t.callers.find(frames)
				frames = frames[max(caller, 0):]
			}
			groups = append(groups, &group{
				frames: frames, tags: [][2]string{{"pool", t.options.Pool}},
				count: int(l.ever.checkouts + 0.5), held: time.Duration(l.ever.held),
			})
		}
		t.usage.mu.Unlock()
	}
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(b.held, a.held) })
	return groups
}
