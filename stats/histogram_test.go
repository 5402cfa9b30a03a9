package stats

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// Each duration lies in the bucket that its bounds say, and the bounds leave no gap.
func TestBuckets(t *testing.T) {
	for i := range numBuckets {
		var lower time.Duration
		if i > 0 {
			lower = upperBound(i - 1)
		}
		if upperBound(i) <= lower {
			t.Fatalf("bucket %d goes from %v to %v", i, lower, upperBound(i))
		}
		if got := bucket(lower); got != i {
			t.Errorf("%v, where bucket %d begins, lies in %d", lower, i, got)
		}
		if got := bucket(upperBound(i) - 1); got != i {
			t.Errorf("the last ns of bucket %d lies in %d", i, got)
		}
	}
	if got := bucket(1<<63 - 1); got != numBuckets-1 {
		t.Errorf("the longest duration lies in bucket %d, want the last", got)
	}
	for d := time.Duration(1); d > 0; d = d*3/2 + 1 {
		if i := bucket(d); i < numBuckets-1 && d >= upperBound(i) {
			t.Errorf("%v lies in bucket %d, which ends at %v", d, i, upperBound(i))
		}
	}
}

// A quantile is off by an eighth of its value at most, from a microsecond to an hour, whatever the distribution.
func TestQuantileError(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 500 {
		n := 1 + rng.IntN(2000)
		least := time.Microsecond << rng.IntN(28)
		spread := int64(1) << rng.IntN(12)
		var h Histogram
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = min(least+time.Duration(rng.Int64N(int64(least)*spread+1)), time.Hour)
			h.Record(all[i])
		}
		slices.Sort(all)
		l := latencyOf(&h)
		for _, q := range []struct {
			q   float64
			got time.Duration
		}{{0.5, l.P50}, {0.9, l.P90}, {0.99, l.P99}, {1, l.Max}} {
			want := all[int(q.q*float64(n-1))]
			if off := max(q.got-want, want-q.got); off > want/8 {
				t.Fatalf("round %d: of %d durations p%.0f is %v, want %v give or take an eighth", round, n, 100*q.q, q.got, want)
			}
		}
		var sum time.Duration
		for _, d := range all {
			sum += d
		}
		if l.Max != all[n-1] || l.Mean != sum/time.Duration(n) || l.Count != int64(n) {
			t.Fatalf("round %d: max %v, mean %v, count %d; want %v, %v, %d", round, l.Max, l.Mean, l.Count, all[n-1], sum/time.Duration(n), n)
		}
		if !(l.P50 <= l.P90 && l.P90 <= l.P99 && l.P99 <= l.Max) {
			t.Fatalf("round %d: quantiles out of order: %+v", round, l)
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	var h Histogram
	if l := latencyOf(&h); l.Count != 0 || l.Max != 0 {
		t.Errorf("an empty histogram tells %+v", l)
	}
	h.Record(-time.Second)
	if l := latencyOf(&h); l.Count != 1 || l.Max != 0 || l.Mean != 0 || l.P99 != 0 {
		t.Errorf("a negative duration counts as %+v, want 0", l)
	}
	h.Record(100 * 24 * time.Hour)
	if l := latencyOf(&h); l.Max != 100*24*time.Hour || l.P99 > l.Max {
		t.Errorf("a duration beyond the last bucket: %+v", l)
	}
}

func TestHistogramConcurrently(t *testing.T) {
	const goroutines, each = 8, 2000
	var h Histogram
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for j := range each {
				h.Record(time.Duration(i*each+j) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	l := latencyOf(&h)
	if l.Count != goroutines*each || l.Max != (goroutines*each-1)*time.Microsecond {
		t.Errorf("count %d, max %v", l.Count, l.Max)
	}
}

func TestRecordAllocatesNothing(t *testing.T) {
	var r Recorder
	c := r.Created(0)
	if n := testing.AllocsPerRun(100, func() {
		c.CheckedOutAfter(time.Millisecond)
		c.CheckedIn(time.Millisecond)
	}); n > 0 {
		t.Errorf("a checkout and check-in allocate %v times", n)
	}
}

func TestLatencyJSON(t *testing.T) {
	got, err := json.Marshal(Latency{Count: 3, Mean: 1500 * time.Microsecond, P50: time.Millisecond, P90: time.Second, P99: time.Minute, Max: time.Hour})
	if want := `{"count":3,"mean":0.0015,"p50":0.001,"p90":1,"p99":60,"max":3600}`; err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

// What publishers read: every duration is in one bucket, below its bound and not below the one before.
func TestPublishedBuckets(t *testing.T) {
	var h Histogram
	durations := []time.Duration{0, 1023, 1<<14 - 1, 1 << 14, 1<<15 - 1, 1 << 15, time.Millisecond, time.Second,
		1<<36 - 1, 1 << 36, 1 << 42, 48 * time.Hour}
	for _, d := range durations {
		h.Record(d)
	}
	l := latencyOf(&h)
	var lower time.Duration
	var seen int64
	buckets := 0
	for bound, n := range l.Buckets() {
		buckets++
		var want int64
		for _, d := range durations {
			if d >= lower && d < bound {
				want++
			}
		}
		if n != want {
			t.Errorf("from %v to %v: %d, want %d", lower, bound, n, want)
		}
		seen += n
		if bound != Longer && bound != 1<<(13+buckets) {
			t.Errorf("bound %d is %v", buckets, bound)
		}
		lower = bound
	}
	if seen != l.Count || lower != Longer || buckets != 24 {
		t.Errorf("%d of %d durations in %d buckets, the last up to %v", seen, l.Count, buckets, lower)
	}
}

func latencyOf(h *Histogram) Latency {
	c := h.counted(true)
	return c.latency(&base{})
}
