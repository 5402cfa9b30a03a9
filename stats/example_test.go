package stats_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/managedpg/managedpg/stats"
)

// A snapshot is a table for a person and JSON for a program. Here the figures are made up; a pool's are in its Stats method
// and in managedpg.Stats.
func ExampleSnapshot() {
	s := stats.Snapshot{
		Name: "shop", GovernedBy: stats.GovernedByDriver, Size: 10, MaxOverflow: 5,
		Open: 12, CheckedOut: 12, Overflow: 2, Waiting: 1, Utilization: 0.8,
		LongestHolders: []stats.Holder{{Caller: "/src/shop/orders.go:110 shop.export", Held: 90 * time.Second}},
	}
	text, err := json.Marshal(s)
	if err != nil {
		fmt.Println(err)
		return
	}
	var figures struct {
		CheckedOut  int     `json:"checked_out"`
		Utilization float64 `json:"utilization"`
		Holders     []struct {
			Caller string  `json:"caller"`
			Held   float64 `json:"held"` // durations are in seconds
		} `json:"longest_holders"`
	}
	if err := json.Unmarshal(text, &figures); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d in use, %.0f %%\n", figures.CheckedOut, 100*figures.Utilization)
	fmt.Println(figures.Holders[0].Caller, figures.Holders[0].Held)
	// Output:
	// 12 in use, 80 %
	// /src/shop/orders.go:110 shop.export 90
}

// The reasons for which connections were closed.
func ExampleClosedBy() {
	var by stats.ClosedBy
	by[stats.ClosedIdle], by[stats.ClosedBroken] = 3, 1
	fmt.Println(by)
	for reason, n := range by.All() {
		if n > 0 {
			fmt.Println(reason, n)
		}
	}
	// Output:
	// 1 broken, 3 idle
	// broken 1
	// idle 3
}

// The buckets in which a histogram is published, for who publishes it elsewhere.
func ExampleLatency_Buckets() {
	var r stats.Recorder
	c := r.Created(time.Millisecond)
	for _, wait := range []time.Duration{20 * time.Microsecond, 20 * time.Microsecond, 3 * time.Millisecond} {
		c.CheckedOutAfter(wait)
	}
	s := stats.Snapshot{GovernedBy: stats.GovernedByDriver}
	r.Fill(&s)
	for bound, n := range s.CheckoutTime.Buckets() {
		if n > 0 {
			fmt.Println("below", bound, n)
		}
	}
	// Output:
	// below 32.768µs 2
	// below 4.194304ms 1
}
