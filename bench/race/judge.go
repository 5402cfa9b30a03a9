package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/managedpg/managedpg/bench/internal/quantile"
)

const (
	slow      = time.Second            // a call that takes longer is counted
	tolerated = 100 * time.Millisecond // what a call may take longer than usual, when all is well
)

// event is when a fault took place.
type event struct {
	struck time.Time // its beginning
	since  time.Time // from when on all could be well
	end    time.Time // of the watch
	to     int       // the port of the server that has to take over; 0: the one there was goes on
}

// outcome is what an application saw of a fault. Times are in ms; what never came is infinite.
type outcome struct {
	errors  float64 // calls still unanswered at the end of the watch included
	doubled float64
	first   float64 // to the first success
	steady  float64 // until every call succeeds, and about as quickly as before
	slow    float64 // calls over a second
}

// judge holds the calls, in the order of their ends, against the rows that are on the servers.
func judge(calls []attempt, found rows, e event) (outcome, error) {
	o := outcome{first: math.Inf(1)}
	var before []float64
	for _, c := range calls {
		if c.end.Before(e.struck) {
			if c.err != nil {
				return o, fmt.Errorf("before the fault: %w", c.err)
			}
			before = append(before, float64(c.took()))
		}
	}
	slices.Sort(before)
	usual := time.Duration(quantile.Of(before, 0.99))
	for _, c := range calls {
		if len(found[c.id]) > 1 {
			o.doubled++
		}
		if c.took() > slow {
			o.slow++
		}
		late := c.took() > usual+tolerated
		if c.err != nil || late && c.end.After(e.end) {
			o.errors++
		}
		if e.recovered(c, found[c.id]) {
			o.first = min(o.first, ms(c.end.Sub(e.since)))
		}
		if c.err != nil || late {
			o.steady = max(o.steady, ms(c.end.Sub(e.since)))
		}
	}
	if o.steady > ms(e.end.Sub(e.since)) {
		o.steady = math.Inf(1)
	}
	return o, nil
}

// recovered says that a call succeeded after the fault, and because it was over: on the server that took over or, when none
// has to, begun afterwards.
func (e event) recovered(c attempt, ports []int) bool {
	switch {
	case c.err != nil || c.end.Before(e.since):
		return false
	case e.to == 0:
		return c.start.After(e.since)
	default:
		return slices.Contains(ports, e.to)
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }
