package main

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/managedpg/managedpg/bench/internal/quantile"
)

// column is something that outcomes are compared by: less is better.
type column struct {
	name, unit string
	of         func(outcome) float64
	summed     bool    // over the repetitions; else the median
	honest     bool    // compared with peers that have doubled nothing
	slack      float64 // what may be added to the best and count as equal; times have a tenth of the best besides
}

var columns = []column{
	{name: "errors", of: func(o outcome) float64 { return o.errors }, honest: true},
	{name: "doubled", of: func(o outcome) float64 { return o.doubled }, summed: true},
	{name: "first success", unit: " ms", of: func(o outcome) float64 { return o.first }, slack: 10},
	{name: "steady", unit: " ms", of: func(o outcome) float64 { return o.steady }, slack: 10},
	{name: "calls over 1 s", of: func(o outcome) float64 { return o.slow }},
}

// value is the figure of all repetitions.
func (c column) value(all []outcome) (value, spread float64) {
	var values []float64
	sum := 0.0
	for _, o := range all {
		values = append(values, c.of(o))
		sum += c.of(o)
	}
	if c.summed {
		return sum, 0
	}
	return quantile.Median(values), quantile.Spread(values)
}

// best is what the best of the peers has, infinite if there is none to compare with.
func (c column) best(all map[*subject][]outcome) (best, spread float64) {
	best = math.Inf(1)
	for s, outcomes := range all {
		if s.managed || c.honest && slices.ContainsFunc(outcomes, func(o outcome) bool { return o.doubled > 0 }) {
			continue
		}
		if v, around := c.value(outcomes); v < best {
			best, spread = v, around
		}
	}
	return best, spread
}

// verdict says whether outcomes are as good as the peers' best, with a question mark when the repetitions differ by more.
func (c column) verdict(outcomes []outcome, best, bestSpread float64) string {
	value, spread := c.value(outcomes)
	limit := best + c.slack
	if c.slack > 0 {
		limit += best / 10
	}
	text := "best"
	if value > limit {
		text = "not"
	}
	if math.Abs(value-best) > c.slack && math.Abs(value-best) < math.Hypot(spread, bestSpread) {
		text += "?"
	}
	return text
}

func (c column) cell(outcomes []outcome) string {
	value, _ := c.value(outcomes)
	if math.IsInf(value, 1) {
		return "never"
	}
	return fmt.Sprintf("%.0f%s", value, c.unit)
}

const rowFormat = "| %-34s | %10s | %10s | %14s | %14s | %14s |\n"

func printTable(out io.Writer, all map[*subject][]outcome) {
	head, line := []any{"subject"}, []any{"---"}
	for _, c := range columns {
		head, line = append(head, c.name), append(line, "--:")
	}
	fmt.Fprintf(out, rowFormat, head...)
	fmt.Fprintf(out, rowFormat, line...)
	for _, s := range subjects {
		row := []any{s.name}
		for _, c := range columns {
			text := c.cell(all[s])
			if s.managed {
				best, spread := c.best(all)
				text += ", " + c.verdict(all[s], best, spread)
			}
			row = append(row, text)
		}
		fmt.Fprintf(out, rowFormat, row...)
	}
}
