package main

import (
	"math"
	"slices"
)

// pair is one block of each of two subjects, run back to back, in ns per call.
type pair struct{ base, subject float64 }

// summary is what a series of pairs says.
type summary struct {
	pairs      int
	base       float64 // median, ns
	delta      float64 // median of the pairs' differences, ns
	ratio      float64 // median of the pairs' ratios
	q1, q3     float64 // the ratios' quartiles
	low, high  float64 // 95 % interval of the median ratio
	deltaError float64 // half of the 95 % interval of the median difference, ns
}

func summarize(pairs []pair) summary {
	base := make([]float64, len(pairs))
	deltas := make([]float64, len(pairs))
	ratios := make([]float64, len(pairs))
	for i, p := range pairs {
		base[i], deltas[i], ratios[i] = p.base, p.subject-p.base, p.subject/p.base
	}
	for _, s := range [][]float64{base, deltas, ratios} {
		slices.Sort(s)
	}
	s := summary{
		pairs: len(pairs),
		base:  quantile(base, 0.5),
		delta: quantile(deltas, 0.5),
		ratio: quantile(ratios, 0.5),
		q1:    quantile(ratios, 0.25),
		q3:    quantile(ratios, 0.75),
	}
	s.low, s.high = medianInterval(ratios)
	low, high := medianInterval(deltas)
	s.deltaError = (high - low) / 2
	return s
}

// quantile interpolates between the two values around q. The values are sorted; of none it is NaN.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// medianInterval is the 95 % confidence interval of the median by order statistics: of n sorted values those some 0.98
// sqrt(n) places below and above the middle, whatever their distribution.
func medianInterval(sorted []float64) (low, high float64) {
	n := float64(len(sorted))
	if n == 0 {
		return math.NaN(), math.NaN()
	}
	reach := 0.98 * math.Sqrt(n)
	first := max(int(math.Floor(n/2-reach)), 0)
	last := min(int(math.Ceil(n/2+reach)), len(sorted)-1)
	return sorted[first], sorted[last]
}
