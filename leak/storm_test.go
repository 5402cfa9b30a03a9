package leak_test

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/leak"
)

//go:noinline
func siteA(ctx context.Context, s *leak.Slot, now time.Duration) { s.CheckOut(ctx, now) }

//go:noinline
func siteB(ctx context.Context, s *leak.Slot, now time.Duration) {
	nested(3, func() { s.CheckOut(ctx, now) })
}

// Connections come and go while everybody looks at them: no report mixes two checkouts, and none is made twice.
func TestStorm(t *testing.T) {
	check := func(r leak.Report) {
		site := r.Labels["site"]
		if !strings.Contains(strings.Join(r.Stack, "\n"), "leak_test.site"+site) || site == "" {
			t.Errorf("labels say site %q, the stack is %q", site, r.Stack)
		}
	}
	var told, once sync.Map
	var reports, refusals atomic.Int64
	type key struct {
		id     uint64
		number uint64
	}
	tracker := leak.New(leak.Options{
		Threshold: time.Hour, ReclaimAfter: 2 * time.Hour, StackDepth: 16,
		Logger: func() *slog.Logger { return slog.New(slog.DiscardHandler) },
		OnLeak: func(r leak.Report) {
			check(r)
			reports.Add(1)
			if _, twice := told.LoadOrStore([2]any{r.ConnectionID, r.Labels["number"]}, true); twice {
				t.Errorf("connection %d reported twice", r.ConnectionID)
			}
		},
	})
	reclaim := reclaimFunc(func(number uint64, r leak.Report) bool {
		check(r)
		if number%2 == 0 {
			refusals.Add(1)
			return false
		}
		if _, twice := once.LoadOrStore(key{r.ConnectionID, number}, true); twice {
			t.Errorf("checkout %d of connection %d reclaimed twice", number, r.ConnectionID)
		}
		return true
	})
	a := pprof.WithLabels(t.Context(), pprof.Labels("site", "A"))
	b := pprof.WithLabels(t.Context(), pprof.Labels("site", "B"))
	// A clock of its own: each checkout in a minute of its own.
	var clock atomic.Int64
	tick := func() time.Duration { return time.Duration(clock.Add(int64(2 * time.Minute))) }

	var holders, watchers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		watchers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				tracker.Scan(time.Duration(clock.Load()))
				for _, r := range append(tracker.Leaks(), tracker.Longest(3)...) {
					check(r)
				}
				if err := leak.WriteProfile(io.Discard); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for g := range 4 {
		holders.Go(func() {
			for i := range 50 {
				id := uint64(g*1000 + i)
				s := tracker.Slot(id, "db:5432/app", 0, reclaim)
				for j := range 40 {
					number := pprof.Labels("number", strconv.Itoa(j))
					if j%2 == 0 {
						siteA(pprof.WithLabels(a, number), s, tick())
					} else {
						siteB(pprof.WithLabels(b, number), s, tick())
					}
					if j%3 == 0 {
						runtime.Gosched() // to be looked at
					}
					if j%3 > 0 || i%2 == 0 {
						s.CheckIn(tick())
					}
				}
				s.Remove()
			}
		})
	}
	holders.Wait()
	close(stop)
	watchers.Wait()
	if tracker.Total() != reports.Load() || tracker.Leaked() != 0 || len(tracker.Longest(1)) != 0 {
		t.Errorf("%d in total, %d told, %d leaked", tracker.Total(), reports.Load(), tracker.Leaked())
	}
}
