package web

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	inside "github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/stats"
)

// Samples are taken once a second though nobody looks: those of five minutes are kept, and one in ten of half an hour, with the most of it.
func TestHistory(t *testing.T) {
	db := open(t, nowhere, "orders")
	pool := db.Driver().(*inside.Driver).Pool()
	synctest.Test(t, func(t *testing.T) {
		h := Handler().(*handler)
		for _, c := range []struct {
			after time.Duration
			want  int
		}{{time.Minute, 61}, {4 * time.Minute, 301}, {5 * time.Minute, 301 + 30}, {20 * time.Minute, 301 + 150}, {2 * time.Hour, 301 + 150}} {
			time.Sleep(c.after)
			synctest.Wait()
			samples, _, _ := h.sampler.of(pool, time.Now(), new(stats.Snapshot))
			if n := len(samples) - 1; n < c.want-2 || n > c.want+3 {
				t.Errorf("%d samples after another %v, want %d", n, c.after, c.want)
			}
			h.sampler.mu.Lock()
			n := len(h.sampler.pools[pool].latencies)
			h.sampler.mu.Unlock()
			if n > int(recent/latencyStep)+2 {
				t.Errorf("%d readings of the histograms are kept", n)
			}
		}
	})
	db.Close()
	var s sampler
	s.take(time.Now())
	if len(s.pools) > 0 {
		t.Error("a closed pool is sampled")
	}
}

// What is thinned out keeps its peaks and its sums.
func TestThinning(t *testing.T) {
	var h history
	start := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	for second := range 601 {
		s := stats.Snapshot{CheckedOut: 1, TotalCheckouts: int64(second)}
		if second == 57 {
			s.CheckedOut, s.Waiting = 4, 9
		}
		h.add(&s, start.Add(time.Duration(second)*time.Second))
	}
	if len(h.recent) != 301 || len(h.old) != 30 {
		t.Fatalf("%d recent ones, %d old ones", len(h.recent), len(h.old))
	}
	if peak := h.old[5]; peak.used != 4 || peak.waiting != 9 || peak.checkouts != 59 {
		t.Errorf("%+v", peak)
	}
}

func samplesOf(now time.Time, all ...sample) []sample {
	for i := range all {
		all[i].at = now.Add(-time.Duration(len(all)-1-i) * time.Second)
	}
	return all
}

func TestCharts(t *testing.T) {
	now := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	failed := errorSums{timeouts: 30}
	samples := samplesOf(now, sample{open: 4, used: 2}, sample{open: 4, used: 4, waiting: 2, checkouts: 100}, sample{open: 4, used: 4, checkouts: 150},
		sample{open: 4, used: 1, checkouts: 150, errors: failed})
	use, rates := charts(samples, now, 180*time.Second, 4, true) // a bin is a second
	// 136 pixels are 6 connections; a value holds until the next bin, and the last one begins now.
	for name, pair := range map[string][2]string{
		"used":    {use.Areas[0].Path, "M177 104.67H178V59.33H180V127.33V150H177Z"},
		"waiting": {use.Areas[1].Path, "M177 104.67H178V14H179V59.33H180V127.33V59.33H178V104.67H177Z"},
		"open":    {use.Line, "M177 59.33H180"},
		"limit":   {use.LimitY, "59.33"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s\nwant %s", name, pair[0], pair[1])
		}
	}
	if use.Label != "1 in use, 4 open, 0 waiting now" {
		t.Error(use.Label)
	}
	if c := rates[0]; c.Title != "Checkouts a second" || c.Top != "100" || c.Label != "50 checkouts" {
		t.Errorf("%+v", c)
	}
	if c := rates[1]; c.Top != "30" || c.Areas[0].Path == "" || c.Areas[3].Path != "" {
		t.Errorf("%+v", c)
	}
	// A long queue doesn't press the pool flat.
	use, _ = charts(samplesOf(now, sample{open: 4, used: 4, waiting: 4000}), now, past, 4, true)
	if use.Top != "12" || strings.Contains(use.Areas[1].Path, "-") {
		t.Errorf("up to %s: %s", use.Top, use.Areas[1].Path)
	}
	if use, _ = charts(samplesOf(now, sample{}), now, past, -1, false); use.Limit || use.Top != "1" || len(use.Areas) != 1 {
		t.Errorf("without a limit: %+v", use)
	}
}

// However a window is cut and thinned, the rates add up to what was counted.
func TestRatesAddUp(t *testing.T) {
	now := time.Date(2024, 5, 1, 12, 0, 7, 0, time.UTC)
	var h history
	for second := range 1500 {
		h.add(&stats.Snapshot{TotalCheckouts: int64(10 * second)}, now.Add(time.Duration(second-1499)*time.Second))
	}
	samples := append(append([]sample{}, h.old...), h.recent...)
	all, _ := binned(samples, now, past)
	sum := 0.0
	for _, b := range all[:bins] {
		sum += b.checkouts * 10
	}
	sum += all[bins].checkouts * 7 // the last bin isn't over
	if want := float64(samples[len(samples)-1].checkouts - samples[0].checkouts); sum < want-0.1 || sum > want+0.1 {
		t.Errorf("%.1f checkouts, want %.1f", sum, want)
	}
}
