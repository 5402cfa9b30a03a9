package leak

import (
	"fmt"
	"runtime/debug"
	"time"
)

// run scans whenever a checkout could have passed a limit, until there are no slots. A checkout after a scan can't pass
// one before the scan's time plus the limit, so none is missed by sleeping that long at most, and checkouts need not
// wake anybody.
func (t *Tracker) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-t.wake:
		}
		now := t.Now()
		next := t.Scan(now)
		if t.ended() {
			t.scanning.Lock()
			t.journal.sumUp(now, true)
			t.scanning.Unlock()
			return
		}
		timer.Reset(next - t.Now()) // a callback may have taken long
	}
}

func (t *Tracker) ended() bool {
	t.backMu.Lock()
	pending := len(t.back) > 0
	t.backMu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.slots) > 0 || pending {
		return false
	}
	t.running = false
	return true
}

// Scan reports the checkouts that have passed a limit at the given time, and returns when it should be called next. The
// tracker does that by itself; it is exported for tests, and not for callbacks, which it would wait for.
func (t *Tracker) Scan(now time.Duration) (next time.Duration) {
	t.scanning.Lock()
	defer t.scanning.Unlock()
	overdue, next := t.overdue(now)
	for i := range overdue {
		if !t.settle(&overdue[i], now) {
			next = now // once pause has passed
		}
	}
	for _, b := range t.takeBack() {
		t.journal.cameBack(b, now)
	}
	t.journal.sumUp(now, false)
	next = min(next, t.journal.due())
	return max(next, now+pause(t.soonest()))
}

// overdue copies the checkouts that there is something to do about, and says when one of the others will be.
func (t *Tracker) overdue(now time.Duration) (overdue []snapshot, next time.Duration) {
	next = now + t.soonest()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.slots {
		st := state(s.state.Load())
		if st == 0 || st&exempt != 0 {
			continue
		}
		report, reclaim := t.due(s, st)
		if due := min(report, reclaim); due > now {
			next = min(next, due)
		} else if snap, ok := s.snapshot(st); ok {
			overdue = append(overdue, snap)
		}
	}
	return overdue, next
}

const never = time.Duration(1<<63 - 1)

// due is when a checkout is to be reported and when it is to be taken back.
func (t *Tracker) due(s *Slot, st state) (report, reclaim time.Duration) {
	report, reclaim = never, never
	if t.options.Threshold > 0 && st&reported == 0 {
		report = st.since() + t.options.Threshold
	}
	if t.options.ReclaimAfter > 0 && s.holder != nil && !s.reclaimed.same(st) {
		reclaim = st.since() + t.options.ReclaimAfter
	}
	return report, reclaim
}

// soonest is the shorter of the two limits.
func (t *Tracker) soonest() time.Duration {
	soonest := never / 2
	for _, limit := range []time.Duration{t.options.Threshold, t.options.ReclaimAfter} {
		if limit > 0 {
			soonest = min(soonest, limit)
		}
	}
	return soonest
}

// pause is the least time between two scans, and so by how much a report may be late. It is also the time until Reclaim
// is asked again about a connection that was busy.
func pause(limit time.Duration) time.Duration {
	return min(max(limit/50, 5*time.Millisecond), time.Second)
}

// settle takes back a checkout that has passed that limit, and reports one that was taken back or has passed the
// threshold. It returns false if Reclaim is to be asked again.
func (t *Tracker) settle(snap *snapshot, now time.Duration) (done bool) {
	s, st := snap.slot, snap.state
	report, reclaim := t.due(s, st)
	r := t.report(snap, now)
	if reclaim <= now {
		r.Reclaimed = true
		r.Reclaimed = s.holder.Reclaim(snap.number, r)
	}
	if r.Reclaimed {
		t.taken.Add(1)
		t.mu.Lock()
		s.reclaimed = st
		t.mu.Unlock()
	}
	done = reclaim > now || r.Reclaimed
	switch {
	case st&reported != 0:
		if r.Reclaimed {
			t.journal.reclaimed(r, s.reported.full, now)
		}
		return done
	case !r.Reclaimed && report > now:
		return done
	}
	// Written before the flag is set: whoever clears the flag reads it.
	full := t.journal.isNew(r.Caller)
	s.reported = &reportedLeak{r, full}
	if !s.state.CompareAndSwap(int64(st), int64(st|reported)) && !r.Reclaimed {
		return true // it ended meanwhile, just in time
	}
	t.total.Add(1)
	t.journal.leaked(r, full, now)
	t.tell(r)
	return done
}

func (t *Tracker) tell(r Report) {
	if t.options.OnLeak == nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			t.options.Logger().Error("managedpg: panic in OnLeak", "pool", r.Pool, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	t.options.OnLeak(r)
}
