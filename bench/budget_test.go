package main

import (
	"math"
	"testing"
)

func TestVerdict(t *testing.T) {
	measured := func(ratio, spread, delta, allocs float64) result {
		return result{summary: summary{ratio: ratio, ratioError: spread, delta: delta, deltaError: 5}, baseAllocs: 2, allocs: 2 + allocs}
	}
	for _, c := range []struct {
		budget budget
		got    result
		want   string
	}{
		{budget{}, measured(9, 0, 900, 9), ""},
		{budget{ratio: 1.04}, measured(1.03, 0.001, 0, 0), "PASS"},
		{budget{ratio: 1.04}, measured(1.05, 0.001, 0, 0), "FAIL"},
		{budget{ratio: 1.04}, measured(1.03, 0.02, 0, 0), "PASS?"},
		{budget{ratio: 1.04}, measured(1.05, 0.02, 0, 0), "PASS?"},
		{budget{ratio: 1.04, ns: 50}, measured(1.05, 0.02, 90, 0), "FAIL"},
		{budget{ns: 100}, measured(2, 1, 103, 0), "PASS?"},
		{budget{ns: 100}, measured(2, 1, 106, 0), "FAIL"},
		{budget{ns: 100, counted: true}, measured(2, 1, 90, 0.05), "PASS"},
		{budget{ns: 100, counted: true}, measured(2, 1, 90, 1), "FAIL"},
	} {
		if got := c.budget.verdict(c.got); got != c.want {
			t.Errorf("budget %q, ratio %v ± %v, %v ns, %v allocs: %q, want %q", c.budget, c.got.ratio, c.got.ratioError,
				c.got.delta, c.got.allocs-c.got.baseAllocs, got, c.want)
		}
	}
}

func TestAheadOfAPeer(t *testing.T) {
	at := func(ratio, spread float64) summary { return summary{ratio: ratio, ratioError: spread} }
	for _, c := range []struct {
		subject, peer summary
		want          string
	}{
		{at(1.00, 0.003), at(1.01, 0.004), "PASS"},
		{at(1.00, 0.006), at(1.01, 0.009), "PASS?"},
		{at(1.02, 0.001), at(1.01, 0.001), "FAIL"},
		{at(1.02, 0.001), at(1.01, math.Inf(1)), "PASS?"},
	} {
		if got := ahead(c.subject, c.peer); got != c.want {
			t.Errorf("%v beside %v: %q, want %q", c.subject.ratio, c.peer.ratio, got, c.want)
		}
	}
}
