package main

import (
	"slices"

	"github.com/managedpg/managedpg/bench/internal/quantile"
)

// pair is one block of each of two subjects, run back to back, in ns per call.
type pair struct{ base, subject float64 }

// summary is what a comparison's rounds of pairs say.
type summary struct {
	pairs      int
	base       float64 // median, ns
	delta      float64 // median of the pairs' differences, ns
	ratio      float64 // median of the pairs' ratios
	q1, q3     float64 // the ratios' quartiles
	ratioError float64 // of the median ratio: see quantile.Spread
	deltaError float64 // of the median difference, ns
}

func summarize(rounds [][]pair) summary {
	var base, deltas, ratios, roundDeltas, roundRatios []float64
	for _, pairs := range rounds {
		first := len(deltas)
		for _, p := range pairs {
			base = append(base, p.base)
			deltas = append(deltas, p.subject-p.base)
			ratios = append(ratios, p.subject/p.base)
		}
		roundDeltas = append(roundDeltas, quantile.Median(deltas[first:]))
		roundRatios = append(roundRatios, quantile.Median(ratios[first:]))
	}
	sorted := slices.Sorted(slices.Values(ratios))
	return summary{
		pairs:      len(ratios),
		base:       quantile.Median(base),
		delta:      quantile.Median(deltas),
		ratio:      quantile.Median(ratios),
		q1:         quantile.Of(sorted, 0.25),
		q3:         quantile.Of(sorted, 0.75),
		ratioError: quantile.Spread(roundRatios),
		deltaError: quantile.Spread(roundDeltas),
	}
}
