package main

import (
	"math"
	"testing"
)

func TestVerdictOfAColumn(t *testing.T) {
	peer, managed := &subject{name: "peer"}, &subject{name: "ours", managed: true}
	errors, doubled, first := columns[0], columns[1], columns[2]
	for _, c := range []struct {
		column      column
		peer, ours  []outcome
		want, shown string
	}{
		{errors, []outcome{{errors: 8}, {errors: 8}}, []outcome{{errors: 8}, {errors: 8}}, "best", "8"},
		{errors, []outcome{{errors: 8}, {errors: 8}}, []outcome{{errors: 9}, {errors: 9}}, "not", "9"},
		{errors, []outcome{{errors: 4}, {errors: 12}}, []outcome{{errors: 9}, {errors: 9}}, "not?", "9"},
		{errors, []outcome{{errors: 3, doubled: 1}, {errors: 4}}, []outcome{{errors: 8}, {errors: 8}}, "best", "8"}, // a gambler
		{doubled, []outcome{{doubled: 1}, {}}, []outcome{{}, {}}, "best", "0"},
		{first, []outcome{{first: 2}, {first: 2}}, []outcome{{first: 11}, {first: 11}}, "best", "11 ms"},
		{first, []outcome{{first: 2}, {first: 2}}, []outcome{{first: 13}, {first: 13}}, "not", "13 ms"},
		{first, []outcome{{first: math.Inf(1)}, {first: math.Inf(1)}}, []outcome{{first: 2000}, {first: 2000}}, "best", "2000 ms"},
		{first, []outcome{{first: 2}, {first: 2}}, []outcome{{first: math.Inf(1)}, {first: math.Inf(1)}}, "not", "never"},
	} {
		best, spread := c.column.best(map[*subject][]outcome{peer: c.peer, managed: c.ours})
		if got := c.column.verdict(c.ours, best, spread); got != c.want {
			t.Errorf("%s: %v beside %v: %q, want %q", c.column.name, c.ours, c.peer, got, c.want)
		}
		if got := c.column.cell(c.ours); got != c.shown {
			t.Errorf("%s: %q, want %q", c.column.name, got, c.shown)
		}
	}
}
