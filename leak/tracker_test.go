package leak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/leak"
)

const threshold = 5 * time.Minute

// fixture is a tracker with what it logged and reported. It is made inside a synctest bubble.
type fixture struct {
	*leak.Tracker
	t *testing.T

	reclaim reclaimFunc // nil: nothing is taken back

	mu    sync.Mutex
	log   bytes.Buffer
	leaks []leak.Report
}

// reclaimFunc is a leak.Holder.
type reclaimFunc func(checkout uint64, r leak.Report) bool

func (f reclaimFunc) Reclaim(checkout uint64, r leak.Report) bool { return f(checkout, r) }

func newFixture(t *testing.T, o leak.Options) *fixture {
	f := &fixture{t: t}
	logger := slog.New(slog.NewJSONHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.Pool, o.StackDepth = "app", 16
	o.Logger = func() *slog.Logger { return logger }
	if o.OnLeak == nil {
		o.OnLeak = func(r leak.Report) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.leaks = append(f.leaks, r)
		}
	}
	f.Tracker = leak.New(o)
	return f
}

func (f *fixture) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

func (f *fixture) slot(id uint64) *leak.Slot {
	var holder leak.Holder
	if f.reclaim != nil {
		holder = f.reclaim
	}
	s := f.Slot(id, "db:5432/app", 4000+uint32(id), holder)
	f.t.Cleanup(s.Remove)
	return s
}

// checkOut takes the connection on a line of its own.
func (f *fixture) checkOut(s *leak.Slot) uint64 { return s.CheckOut(f.t.Context(), f.Now()) }

func (f *fixture) reported() []leak.Report {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leaks
}

// lines returns what was logged since the last call.
func (f *fixture) lines() (lines []map[string]any) {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for line := range bytes.Lines(f.log.Bytes()) {
		var l map[string]any
		if err := json.Unmarshal(line, &l); err != nil {
			f.t.Fatal(err)
		}
		lines = append(lines, l)
	}
	f.log.Reset()
	return lines
}

func (f *fixture) wantLines(want ...string) (lines []map[string]any) {
	f.t.Helper()
	lines = f.lines()
	var got []string
	for _, l := range lines {
		got = append(got, l["level"].(string)+" "+l["msg"].(string))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.t.Fatalf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	return lines
}

const (
	tooLong   = "WARN managedpg: connection is held too long"
	cameBack  = "INFO managedpg: connection came back"
	more      = "WARN managedpg: more connections were held too long by a caller reported before"
	moreBack  = "INFO managedpg: more connections were held too long by a caller reported before"
	reclaimed = "WARN managedpg: connection is reclaimed"
	both      = "WARN managedpg: connection was held too long and is reclaimed"
)

func TestReportedOnceWithTheCallersLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		s := f.slot(7)
		start := time.Now()
		ctx := pprof.WithLabels(t.Context(), pprof.Labels("route", "/users", "tenant", "42"))
		s.CheckOut(ctx, f.Now())
		_, file, line, _ := runtime.Caller(0)
		line--

		time.Sleep(threshold - time.Nanosecond)
		if len(f.reported()) > 0 || f.Leaked() != 0 || f.Leaks() != nil {
			t.Fatal("reported before the threshold")
		}
		time.Sleep(time.Nanosecond)
		reports := f.reported()
		if len(reports) != 1 || f.Leaked() != 1 || f.Total() != 1 {
			t.Fatalf("%d reports, %d leaked, %d in total; want 1", len(reports), f.Leaked(), f.Total())
		}
		r := reports[0]
		place := file + ":" + itoa(line) + " "
		if !strings.HasPrefix(r.Caller, place) || !strings.Contains(r.Caller, "leak_test.TestReportedOnce") {
			t.Errorf("caller %q, want it at %s", r.Caller, place)
		}
		if len(r.Stack) == 0 || r.Stack[0] != r.Caller {
			t.Errorf("stack %q, want it to start with the caller", r.Stack)
		}
		if r.Pool != "app" || r.ConnectionID != 7 || r.BackendPID != 4007 || r.Endpoint != "db:5432/app" || r.Reclaimed {
			t.Errorf("report %+v", r)
		}
		if !r.CheckedOutAt.Equal(start) || r.Duration != threshold {
			t.Errorf("held since %s for %s, want %s, %s", r.CheckedOutAt, r.Duration, start, threshold)
		}
		if len(r.Labels) != 2 || r.Labels["route"] != "/users" || r.Labels["tenant"] != "42" {
			t.Errorf("labels %v", r.Labels)
		}
		l := f.wantLines(tooLong)[0]
		if l["caller"] != r.Caller || l["backend_pid"] != 4007. || l["endpoint"] != r.Endpoint || l["pool"] != "app" ||
			l["duration"] != float64(threshold) || l["labels"].(map[string]any)["route"] != "/users" || l["stack"].([]any)[0] != r.Caller {
			t.Errorf("logged %v", l)
		}

		time.Sleep(time.Hour)
		f.wantLines()
		if now := f.Leaks(); len(now) != 1 || now[0].Duration != threshold+time.Hour {
			t.Errorf("Leaks() = %v", now)
		}
		s.CheckIn(f.Now())
		if l := f.wantLines(cameBack)[0]; l["duration"] != float64(threshold+time.Hour) || l["caller"] != r.Caller {
			t.Errorf("logged %v", l)
		}
		if f.Leaked() != 0 || f.Leaks() != nil || f.Total() != 1 || len(f.reported()) != 1 {
			t.Errorf("after the check-in: %d leaked, %d in total", f.Leaked(), f.Total())
		}
		f.Reset()
		if f.Total() != 0 {
			t.Errorf("after Reset %d in total", f.Total())
		}
	})
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestShortCheckoutsAreNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: time.Second})
		s := f.slot(1)
		for i := range 1_000_000 {
			s.CheckOut(t.Context(), f.Now())
			if i%1000 == 0 {
				time.Sleep(time.Second - time.Nanosecond)
			}
			s.CheckIn(f.Now())
		}
		time.Sleep(time.Minute)
		f.wantLines()
		if len(f.reported()) > 0 || f.Total() != 0 {
			t.Errorf("%d reported", f.Total())
		}
	})
}

// Most checkouts begin while the scanner sleeps; none may be found late because of that.
func TestReportedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		for id := range uint64(200) {
			f.checkOut(f.slot(id))
			time.Sleep(time.Duration(id) * 977 * time.Millisecond % (20 * time.Second))
		}
		time.Sleep(2 * threshold)
		reports := f.reported()
		if len(reports) != 200 {
			t.Fatalf("%d reports, want 200", len(reports))
		}
		for _, r := range reports {
			if late := r.Duration - threshold; late < 0 || late > time.Second {
				t.Errorf("connection %d reported %s after the threshold", r.ConnectionID, late)
			}
		}
	})
}

func TestTrackerSleepsWhileNothingIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		f.slot(1)
		s := f.slot(2)
		f.checkOut(s)
		if next := f.Scan(f.Now() + time.Minute); next != threshold {
			t.Errorf("next scan at %s, want it when the checkout passes the threshold", next)
		}
		s.CheckIn(f.Now())
		if next := f.Scan(f.Now() + time.Minute); next != threshold+time.Minute {
			t.Errorf("next scan at %s, want one threshold later", next)
		}
	})
}

func TestLeaksOfOneCallSiteAreSummedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		leakOne := func(id uint64) *leak.Slot {
			s := f.slot(id)
			f.checkOut(s)
			return s
		}
		var slots []*leak.Slot
		for id := range uint64(91) { // one each 2 s, for 3 minutes
			slots = append(slots, leakOne(id))
			time.Sleep(2 * time.Second)
		}
		other := f.slot(1000)
		other.CheckOut(t.Context(), f.Now()) // another line
		time.Sleep(2 * threshold)
		lines := f.wantLines(tooLong, more, more, tooLong, more)
		counted := 0.
		for _, l := range lines {
			if n, ok := l["leaks"].(float64); ok {
				counted += n
				if l["caller"] != lines[0]["caller"] {
					t.Errorf("counted for %v", l["caller"])
				}
				if within := time.Duration(l["within"].(float64)); within < time.Minute || within > time.Minute+time.Second {
					t.Errorf("counted within %s", within)
				}
			}
		}
		if counted != 90 {
			t.Errorf("%v leaks summed up, want 90", counted)
		}
		if len(f.reported()) != 92 || f.Total() != 92 || f.Leaked() != 92 {
			t.Errorf("%d reported, want each of 92", len(f.reported()))
		}

		for _, s := range slots {
			s.CheckIn(f.Now())
		}
		f.wantLines(cameBack)
		time.Sleep(2 * time.Minute)
		if l := f.wantLines(moreBack)[0]; l["came_back"] != 90. {
			t.Errorf("logged %v", l)
		}

		// After an hour without, its next leak is news again.
		time.Sleep(time.Hour)
		f.checkOut(slots[0])
		time.Sleep(2 * threshold)
		f.wantLines(tooLong)
	})
}

func TestCountsAreLoggedWhenThePoolEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		slots := []*leak.Slot{f.slot(1), f.slot(2)}
		for _, s := range slots {
			f.checkOut(s)
		}
		time.Sleep(threshold + time.Second)
		f.wantLines(tooLong)
		for _, s := range slots {
			s.Remove()
		}
		synctest.Wait()
		lines := f.lines()
		if len(lines) != 2 || lines[0]["msg"] != "managedpg: connection came back" || lines[1]["leaks"] != 1. || lines[1]["came_back"] != 1. {
			t.Errorf("logged %v", lines)
		}
	})
}

func TestLongCheckoutIsNeverReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold, ReclaimAfter: threshold})
		f.reclaim = func(uint64, leak.Report) bool { t.Error("asked to reclaim"); return true }
		s := f.slot(1)
		s.CheckOut(context.WithoutCancel(leak.LongCheckout(t.Context())), f.Now())
		time.Sleep(24 * time.Hour)
		f.wantLines()
		if f.Total() != 0 || f.Leaked() != 0 || f.Leaks() != nil {
			t.Error("a long checkout was reported")
		}
		if longest := f.Longest(5); len(longest) != 1 || longest[0].Duration != 24*time.Hour {
			t.Errorf("Longest() = %v, want the long checkout: it does hold a connection", longest)
		}
		s.CheckIn(f.Now())
		f.checkOut(s)
		s.CheckIn(f.Now())
		f.checkOut(s)
		if f.Leaked() != 0 {
			t.Error("the next checkout counts from the long one")
		}
	})
}

func TestLongest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{})
		if f.Longest(3) != nil {
			t.Error("holders without a slot")
		}
		slots := make([]*leak.Slot, 10)
		for i := range slots {
			slots[i] = f.slot(uint64(i))
		}
		for _, i := range []int{4, 8, 1, 7, 0, 3} {
			f.checkOut(slots[i])
			time.Sleep(time.Second)
		}
		slots[8].CheckIn(f.Now())
		for _, test := range []struct {
			n    int
			want []uint64
		}{{0, nil}, {1, []uint64{4}}, {3, []uint64{4, 1, 7}}, {100, []uint64{4, 1, 7, 0, 3}}} {
			var got []uint64
			for _, r := range f.Longest(test.n) {
				got = append(got, r.ConnectionID)
				if r.Caller == "" {
					t.Error("no caller")
				}
			}
			if len(got) != len(test.want) {
				t.Fatalf("Longest(%d) = connections %v, want %v", test.n, got, test.want)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Fatalf("Longest(%d) = connections %v, want %v", test.n, got, test.want)
				}
			}
		}
		if f.Leaked() != 0 || f.Leaks() != nil {
			t.Error("leaks without a threshold")
		}
	})
}

func TestRemoveWhileHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		kept, s := f.slot(1), f.slot(2)
		f.checkOut(s)
		time.Sleep(threshold)
		f.wantLines(tooLong)
		s.Remove()
		s.Remove()
		s.CheckIn(f.Now())
		f.wantLines(cameBack)
		if f.Leaked() != 0 || len(f.Longest(5)) != 0 {
			t.Error("a removed connection is still held")
		}
		f.checkOut(kept)
		if len(f.Longest(5)) != 1 {
			t.Error("the other connection was lost")
		}
	})
}

// A check-in that the pool forgot must not make the next checkout look old.
func TestCheckOutEndsTheCheckoutBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold})
		s := f.slot(1)
		first := f.checkOut(s)
		time.Sleep(threshold)
		f.wantLines(tooLong)
		if second := f.checkOut(s); second == first {
			t.Error("two checkouts of one number")
		}
		f.wantLines(cameBack)
		if f.Leaked() != 0 {
			t.Error("the new checkout is a leak from the start")
		}
	})
}

func TestPanicInOnLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{Threshold: threshold, OnLeak: func(leak.Report) { panic("oops") }})
		f.checkOut(f.slot(1))
		time.Sleep(threshold)
		if l := f.wantLines(tooLong, "ERROR managedpg: panic in OnLeak")[1]; l["panic"] != "oops" {
			t.Errorf("logged %v", l)
		}
	})
}

func TestCallbacksMayUseTheTracker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f *fixture
		var s *leak.Slot
		called := false
		f = newFixture(t, leak.Options{Threshold: threshold, OnLeak: func(leak.Report) {
			called = f.Leaked() == 1 && len(f.Leaks()) == 1 && len(f.Longest(1)) == 1 && f.Total() == 1
			s.CheckIn(f.Now())
			s.Remove()
		}})
		s = f.slot(1)
		f.checkOut(s)
		time.Sleep(threshold)
		synctest.Wait()
		if !called {
			t.Error("OnLeak saw something else")
		}
	})
}

// An ORM may be deeper than the frames that are walked; its caller must be found all the same, and only then.
func TestStackThatEndsInsideALibraryIsWalkedFurther(t *testing.T) {
	for _, test := range []struct {
		skip   []string
		frames int
		caller string
	}{
		{nil, 16, " github.com/managedpg/managedpg/leak_test.TestStack"},
		{[]string{"github.com/managedpg/managedpg/leak_test"}, 30, " testing."},
	} {
		tracker := leak.New(leak.Options{StackDepth: 16, SkipPackages: test.skip})
		s := tracker.Slot(1, "db:5432/app", 1, nil)
		defer s.Remove()
		nested(25, func() {
			if n := testing.AllocsPerRun(100, func() { s.CheckOut(t.Context(), tracker.Now()) }); n != 0 {
				t.Errorf("%v allocations per checkout", n)
			}
		})
		r := tracker.Longest(1)[0]
		if !strings.Contains(r.Caller, test.caller) || (len(r.Stack) > 16) != (test.frames > 16) {
			t.Errorf("skipping %q: caller %q and %d frames", test.skip, r.Caller, len(r.Stack))
		}
	}
}

func TestCheckoutsDoNotAllocate(t *testing.T) {
	tracker := leak.New(leak.Options{Threshold: time.Hour, StackDepth: 16})
	s := tracker.Slot(1, "db:5432/app", 1, nil)
	defer s.Remove()
	ctx := pprof.WithLabels(leak.LongCheckout(t.Context()), pprof.Labels("route", "/users"))
	nested(20, func() {
		if n := testing.AllocsPerRun(1000, func() {
			s.CheckOut(ctx, tracker.Now())
			s.CheckIn(tracker.Now())
		}); n != 0 {
			t.Errorf("%v allocations per checkout", n)
		}
	})
}
