// Package quantile has medians and their like.
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
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}
