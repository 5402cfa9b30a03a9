package stats

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// A histogram's buckets are log-linear: every power of two above 1024 ns is cut into four, so a quantile is off by an
// eighth of its value at most. Everything below 1024 ns shares the first bucket, everything above an hour the last.
const (
	firstBits  = 10 // 2^10 ns
	subBits    = 2
	lastBits   = 42 // 2^42 ns, some 73 minutes
	numBuckets = (lastBits-firstBits)<<subBits + 1
)

// Histogram counts durations. It is safe for concurrent use; its zero value is empty.
type Histogram struct {
	counts [numBuckets]atomic.Int64
	sum    atomic.Int64
	max    atomic.Int64
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.sum.Add(int64(d))
	for {
		old := h.max.Load()
		if int64(d) <= old || h.max.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func bucket(d time.Duration) int {
	n := bits.Len64(uint64(d))
	if n <= firstBits {
		return 0
	}
	sub := int(d>>(n-1-subBits)) & (1<<subBits - 1)
	return min((n-1-firstBits)<<subBits+sub+1, numBuckets-1)
}

// upperBound is the smallest duration that no longer belongs to bucket i.
func upperBound(i int) time.Duration {
	if i == 0 {
		return 1 << firstBits
	}
	octave, sub := (i-1)>>subBits, (i-1)&(1<<subBits-1)
	return time.Duration(1<<subBits+sub+1) << (firstBits + octave - subBits)
}

// base is what a histogram had counted when its pool's statistics were reset.
type base struct {
	counts [numBuckets]int64
	sum    int64
}

func (h *Histogram) reset(b *base) {
	for i := range h.counts {
		b.counts[i] = h.counts[i].Load()
	}
	b.sum = h.sum.Load()
	h.max.Store(0)
}

// latency reads the histogram, less what it had counted at the last reset.
func (h *Histogram) latency(b *base) Latency {
	var counts [numBuckets]int64
	var l Latency
	for i := range counts {
		counts[i] = h.counts[i].Load() - b.counts[i]
		l.Count += counts[i]
	}
	if l.Count == 0 {
		return l
	}
	l.Max = time.Duration(h.max.Load())
	l.Mean = time.Duration((h.sum.Load() - b.sum) / l.Count)
	l.P50, l.P90, l.P99 = quantile(&counts, l, 0.50), quantile(&counts, l, 0.90), quantile(&counts, l, 0.99)
	return l
}

// quantile is the middle of the bucket in which the q-th duration lies, but never more than the largest one seen.
func quantile(counts *[numBuckets]int64, l Latency, q float64) time.Duration {
	rank := int64(q*float64(l.Count-1)) + 1
	var seen int64
	for i, n := range counts {
		if seen += n; seen >= rank {
			var lower time.Duration
			if i > 0 {
				lower = upperBound(i - 1)
			}
			return min((lower+upperBound(i))/2, l.Max)
		}
	}
	return l.Max
}

// Latency sums up a histogram. In JSON its durations are in seconds.
type Latency struct {
	Count int64
	// Mean, P50, P90, P99 and Max are 0 while Count is 0. The quantiles are off by an eighth at most.
	Mean, P50, P90, P99, Max time.Duration
}

// MarshalJSON writes the durations in seconds.
func (l Latency) MarshalJSON() ([]byte, error) { return marshalSeconds(l.fields()) }

func (l Latency) fields() []field {
	return []field{
		{"count", l.Count}, {"mean", l.Mean}, {"p50", l.P50}, {"p90", l.P90}, {"p99", l.P99}, {"max", l.Max},
	}
}
