package main

import (
	"math"
	"slices"
	"testing"
)

// A machine that is twice as slow for a while slows both blocks of a pair: the medians of ratios don't see it.
func TestSummarizePairs(t *testing.T) {
	var rounds [][]pair
	for range 4 {
		var pairs []pair
		for i := range 25 {
			slow := 1.0
			if i%3 == 0 {
				slow = 2
			}
			pairs = append(pairs, pair{base: 100 * slow, subject: 105 * slow})
		}
		rounds = append(rounds, pairs)
	}
	rounds[2] = append(rounds[2], pair{base: 100, subject: 5000}) // preempted
	s := summarize(rounds)
	near := func(name string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	near("ratio", s.ratio, 1.05)
	near("q1", s.q1, 1.05)
	near("q3", s.q3, 1.05)
	near("base", s.base, 100)
	near("delta", s.delta, 5)
	near("ratioError", s.ratioError, 0)
	if s.pairs != 101 {
		t.Errorf("pairs = %d", s.pairs)
	}
}

func TestTakePairsUsesBothOrders(t *testing.T) {
	var order []string
	block := func(name string) func(int) (float64, error) {
		return func(int) (float64, error) {
			order = append(order, name)
			return map[string]float64{"base": 10, "subject": 20}[name], nil
		}
	}
	pairs, err := takePairs(block("base"), block("subject"), 1, func(n int) bool { return n < 50 })
	if err != nil {
		t.Fatal(err)
	}
	if len(pairs) != 50 || len(order) != 100 {
		t.Fatalf("%d pairs, %d blocks", len(pairs), len(order))
	}
	first := map[string]bool{}
	for two := range slices.Chunk(order, 2) {
		if two[0] == two[1] {
			t.Fatalf("a pair of %v", two)
		}
		first[two[0]] = true
	}
	if len(first) != 2 {
		t.Errorf("%v came first in all 50 pairs", order[0])
	}
	for _, p := range pairs {
		if p != (pair{base: 10, subject: 20}) {
			t.Fatalf("pair %v: blocks mixed up", p)
		}
	}
}
