package quantile_test

import (
	"math"
	"testing"

	"github.com/managedpg/managedpg/bench/internal/quantile"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		sorted []float64
		q      float64
		want   float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{1, 3}, 0.5, 2},
		{[]float64{1, 2, 9}, 0.5, 2},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{1, 2, 3, 4}, 0.75, 3.25},
		{[]float64{1, 2, 3, 4}, 1, 4},
		{[]float64{1, 2, 3, 4}, 0, 1},
		{[]float64{1, math.Inf(1), math.Inf(1)}, 0.5, math.Inf(1)},
		{[]float64{1, 2, math.Inf(1)}, 0.5, 2},
	} {
		if got := quantile.Of(c.sorted, c.q); got != c.want {
			t.Errorf("Of(%v, %v) = %v, want %v", c.sorted, c.q, got, c.want)
		}
	}
	if got := quantile.Of(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("Of nothing = %v", got)
	}
}

func TestMedianSorts(t *testing.T) {
	values := []float64{9, 1, 2}
	if got := quantile.Median(values); got != 2 {
		t.Errorf("Median(%v) = %v", values, got)
	}
}

func TestSpread(t *testing.T) {
	if got := quantile.Spread([]float64{1, 3}); math.Abs(got-2) > 1e-9 {
		t.Errorf("spread of 1 and 3 = %v, want 2", got)
	}
	if got := quantile.Spread([]float64{5, 5, 5}); got != 0 {
		t.Errorf("spread of equal rounds = %v", got)
	}
	if got := quantile.Spread([]float64{1}); !math.IsInf(got, 1) {
		t.Errorf("spread of one round = %v", got)
	}
}
