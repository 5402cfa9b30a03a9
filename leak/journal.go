package leak

import (
	"context"
	"log/slog"
	"time"
)

const (
	// sumEvery is how often further leaks of one call site are summed up.
	sumEvery = time.Minute
	// siteMemory is for how long a call site must not leak until its next leak is logged in full again.
	siteMemory = time.Hour
)

// journal writes the log: the first leak of a call site in full, the others as a count per minute, so that a leak in a
// loop doesn't bury everything else. It is guarded by Tracker.scanning.
type journal struct {
	pool   string
	logger func() *slog.Logger
	sites  map[string]*site // by Report.Caller
}

// site is what is not logged yet of a call site.
type site struct {
	last      time.Duration // of its leaks
	from      time.Duration // the start of the counts, if there are any
	leaks     int
	returned  int
	reclaimed int
	longest   time.Duration // held
}

func (s *site) empty() bool { return s.leaks == 0 && s.returned == 0 && s.reclaimed == 0 }

// reportedLeak is what a slot keeps of a checkout that was reported.
type reportedLeak struct {
	Report
	full bool // it has log lines of its own
}

// returned is a reported checkout that has ended.
type returned struct {
	slot  *Slot
	state state
	leak  reportedLeak
}

// cameBack remembers the end of a reported checkout for the next scan: CheckIn may be called under the pool's locks, where
// no logger must be.
func (t *Tracker) cameBack(s *Slot, st state, now time.Duration) {
	leak := *s.reported
	leak.Duration = now - st.since()
	t.backMu.Lock()
	t.back = append(t.back, returned{s, st, leak})
	t.backMu.Unlock()
	t.wakeUp()
}

func (t *Tracker) takeBack() []returned {
	t.backMu.Lock()
	defer t.backMu.Unlock()
	back := t.back
	t.back = nil
	return back
}

// isNew says whether the next leak of a caller is logged in full.
func (j *journal) isNew(caller string) bool { return j.sites[caller] == nil }

// count returns the site to count something at.
func (j *journal) count(r Report, now time.Duration) *site {
	s := j.sites[r.Caller]
	if s == nil {
		s = &site{last: now}
		j.sites[r.Caller] = s
	}
	if s.empty() {
		s.from = now
	}
	s.longest = max(s.longest, r.Duration)
	return s
}

func (j *journal) leaked(r Report, full bool, now time.Duration) {
	s := j.count(r, now)
	s.last = now
	switch {
	case !full:
		s.leaks++
		if r.Reclaimed {
			s.reclaimed++
		}
	case r.Reclaimed:
		j.log(slog.LevelWarn, "managedpg: connection was held too long and is reclaimed", r, true)
	default:
		j.log(slog.LevelWarn, "managedpg: connection is held too long", r, true)
	}
}

// reclaimed is for one that was reported before.
func (j *journal) reclaimed(r Report, full bool, now time.Duration) {
	if full {
		j.log(slog.LevelWarn, "managedpg: connection is reclaimed", r, false)
		return
	}
	j.count(r, now).reclaimed++
}

func (j *journal) cameBack(b returned, now time.Duration) {
	switch {
	case b.slot.reclaimed.same(b.state):
		// It didn't come back by itself.
	case b.leak.full:
		j.log(slog.LevelInfo, "managedpg: connection came back", b.leak.Report, false)
	default:
		j.count(b.leak.Report, now).returned++
	}
}

// sumUp logs the counts that are a minute old, or all.
func (j *journal) sumUp(now time.Duration, all bool) {
	for caller, s := range j.sites {
		switch {
		case !s.empty() && (all || now-s.from >= sumEvery):
			j.logSum(caller, s, now)
			*s = site{last: s.last}
		case s.empty() && now-s.last >= siteMemory:
			delete(j.sites, caller)
		}
	}
}

// due is when sumUp will have something to say.
func (j *journal) due() time.Duration {
	due := never
	for _, s := range j.sites {
		if !s.empty() {
			due = min(due, s.from+sumEvery)
		}
	}
	return due
}

func (j *journal) log(level slog.Level, message string, r Report, stack bool) {
	logger, ctx := j.logger(), context.Background()
	if !logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("pool", r.Pool),
		slog.String("caller", r.Caller),
		slog.Duration("duration", r.Duration),
		slog.Time("checked_out_at", r.CheckedOutAt),
		slog.Uint64("connection_id", r.ConnectionID),
		slog.Uint64("backend_pid", uint64(r.BackendPID)),
		slog.String("endpoint", r.Endpoint),
	}
	if len(r.Labels) > 0 {
		attrs = append(attrs, slog.Any("labels", r.Labels))
	}
	if stack {
		attrs = append(attrs, slog.Any("stack", r.Stack))
	}
	logger.LogAttrs(ctx, level, message, attrs...)
}

func (j *journal) logSum(caller string, s *site, now time.Duration) {
	level := slog.LevelInfo
	if s.leaks > 0 || s.reclaimed > 0 {
		level = slog.LevelWarn
	}
	logger, ctx := j.logger(), context.Background()
	if !logger.Enabled(ctx, level) {
		return
	}
	logger.LogAttrs(ctx, level, "managedpg: more connections were held too long by a caller reported before",
		slog.String("pool", j.pool),
		slog.String("caller", caller),
		slog.Duration("within", now-s.from),
		slog.Int("leaks", s.leaks),
		slog.Int("came_back", s.returned),
		slog.Int("reclaimed", s.reclaimed),
		slog.Duration("longest", s.longest),
	)
}
