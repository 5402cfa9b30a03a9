// Package quantile has medians and their like, and says how far to trust them.
package quantile

import (
	"math"
	"slices"
)

// Median is the one of values in any order.
func Median(values []float64) float64 { return Of(slices.Sorted(slices.Values(values)), 0.5) }

// Of interpolates between the two values around q. The values are sorted; of none it is NaN.
func Of(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	i := int(at)
	if part := at - float64(i); part > 0 && sorted[i] != sorted[i+1] { // which infinite ones needn't be added up to
		return sorted[i] + part*(sorted[i+1]-sorted[i])
	}
	return sorted[i]
}

// Spread is twice the standard error of the mean of rounds. Pairs of one round share connections, backends and a machine's
// mood, so it is the rounds that count as independent, not the pairs. Of fewer than two it is infinite.
func Spread(rounds []float64) float64 {
	n := float64(len(rounds))
	if n < 2 {
		return math.Inf(1)
	}
	var mean, squares float64
	for _, v := range rounds {
		mean += v / n
	}
	for _, v := range rounds {
		squares += (v - mean) * (v - mean)
	}
	return 2 * math.Sqrt(squares/(n-1)/n)
}
