package stats

import (
	"fmt"
	"iter"
	"math"
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
	max    atomic.Int64 // since the last reset
	before atomic.Int64 // the largest until then
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.sum.Add(int64(d))
	h.count(d)
}

// count is Record of a duration that isn't negative, when somebody else has the sum.
func (h *Histogram) count(d time.Duration) {
	h.counts[bucket(d)].Add(1)
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

// counted is what histograms have counted, one or several.
type counted struct {
	base
	max int64
}

// counted is what the histogram has counted; the largest is that since the last reset, or ever.
func (h *Histogram) counted(ever bool) (c counted) {
	for i := range h.counts {
		c.counts[i] = h.counts[i].Load()
	}
	c.sum, c.max = h.sum.Load(), h.max.Load()
	if ever {
		c.max = max(c.max, h.before.Load())
	}
	return c
}

// reset makes the largest start anew.
func (h *Histogram) reset() { h.before.Store(max(h.before.Load(), h.max.Swap(0))) }

// latency is what was counted since.
func (c *counted) latency(since *base) (l Latency) {
	for i := range l.counts {
		l.counts[i] = c.counts[i] - since.counts[i]
		l.Count += l.counts[i]
	}
	if l.Count == 0 {
		return l
	}
	l.Sum = time.Duration(c.sum - since.sum)
	l.Mean = l.Sum / time.Duration(l.Count)
	l.Max = time.Duration(c.max)
	l.P50, l.P90, l.P99 = l.quantile(0.50), l.quantile(0.90), l.quantile(0.99)
	return l
}

// Latency sums up a histogram. In JSON its durations are in seconds.
type Latency struct {
	Count int64
	// Mean, P50, P90, P99, Max and Sum are 0 while Count is 0. The quantiles are off by an eighth at most.
	Mean, P50, P90, P99, Max time.Duration
	Sum                      time.Duration // of all; not in the JSON

	counts [numBuckets]int64
}

// Since is what was added after an earlier reading of the same figure, without a ResetStats between. Max is known no better than the
// quantiles then.
func (l Latency) Since(earlier Latency) (added Latency) {
	top := -1
	for i := range l.counts {
		added.counts[i] = max(0, l.counts[i]-earlier.counts[i])
		if added.Count += added.counts[i]; added.counts[i] > 0 {
			top = i
		}
	}
	if added.Count == 0 {
		return Latency{}
	}
	added.Max = min(upperBound(top), l.Max)
	added.Sum = max(0, l.Sum-earlier.Sum)
	added.Mean = added.Sum / time.Duration(added.Count)
	added.P50, added.P90, added.P99 = added.quantile(0.50), added.quantile(0.90), added.quantile(0.99)
	return added
}

// quantile is the middle of the bucket in which the q-th duration lies, but never more than the largest one seen.
func (l *Latency) quantile(q float64) time.Duration {
	rank := int64(q*float64(l.Count-1)) + 1
	var seen int64
	for i, n := range l.counts {
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

// The bounds that Buckets yields are the powers of two from 16 µs, below which nobody waits, to 69 s.
const (
	leastBits = 14
	mostBits  = 36
)

// Longer is the last bound of Buckets: no bound at all.
const Longer = time.Duration(math.MaxInt64)

// Buckets yields the histogram in the buckets in which it is published: how many durations were shorter than the bound
// and not shorter than the bound before. The bounds are the same for all histograms.
func (l *Latency) Buckets() iter.Seq2[time.Duration, int64] {
	return func(yield func(time.Duration, int64) bool) {
		i := 0
		for bits := leastBits; bits <= mostBits; bits++ {
			var n int64
			for end := (bits-firstBits)<<subBits + 1; i < end; i++ {
				n += l.counts[i]
			}
			if !yield(1<<bits, n) {
				return
			}
		}
		var n int64
		for _, c := range l.counts[i:] {
			n += c
		}
		yield(Longer, n)
	}
}

// String is the latency in one line.
func (l Latency) String() string {
	return fmt.Sprintf("%d times, mean %v, p50 %v, p90 %v, p99 %v, max %v", l.Count,
		round(l.Mean), round(l.P50), round(l.P90), round(l.P99), round(l.Max))
}

// MarshalJSON writes the durations in seconds.
func (l Latency) MarshalJSON() ([]byte, error) { return marshalSeconds(l.fields()) }

func (l *Latency) fields() []field {
	return []field{
		{"count", l.Count}, {"mean", l.Mean}, {"p50", l.P50}, {"p90", l.P90}, {"p99", l.P99}, {"max", l.Max},
	}
}
