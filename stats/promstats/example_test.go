package promstats_test

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/managedpg/managedpg/stats/promstats"
)

// Once for the program: it sees all pools, those that are opened later too.
func ExampleNewCollector() {
	prometheus.MustRegister(promstats.NewCollector())
}
