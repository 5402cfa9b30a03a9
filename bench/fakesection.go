package main

import (
	"database/sql"
	"database/sql/driver"
	"time"

	"github.com/managedpg/managedpg"
)

func fakeSection() *section {
	var (
		bare      = &subject{name: "bare", open: bareFake, limits: sized}
		unkept    = &subject{name: "bare, none kept", open: func() (*sql.DB, error) { return sql.OpenDB(&unkept{}), nil }}
		floor     = least(func() (driver.Connector, error) { return fake{}, nil })
		bySQL     = overFake("by database/sql", func(c *managedpg.Config) { c.LeakDetection = false })
		bySQLLeak = overFake("by database/sql, leaks", func(*managedpg.Config) {})
		byUs      = overFake("by the driver", func(c *managedpg.Config) { c.PoolSize, c.LeakDetection = poolSize, false })
		byUsLeak  = overFake("by the driver, leaks", func(c *managedpg.Config) { c.PoolSize = poolSize })
	)
	limit := func(ns, allocs float64) func(*workload) budget {
		return func(*workload) budget { return budget{ns: ns, allocs: allocs, counted: true} }
	}
	// above is for the first call of a checkout; each further call that database/sql makes of the driver has 50 ns more.
	above := func(ns float64) func(*workload) budget {
		return func(w *workload) budget { return budget{ns: ns + 50*float64(w.further), counted: true} }
	}
	return &section{
		name: "fake",
		about: "A base driver that does nothing, serial; a call is one checkout. \"by\" says who governs the pool (pool_size absent " +
			"or present);\nleak detection is off unless \"leaks\" stands there, with the default depth. \"none kept\" is a driver " +
			"whose connections\ndatabase/sql may not keep, and always the same one: what database/sql itself spends when the " +
			"driver governs. \"least\" passes each\ncall on, and reads the clock and counts at the checkout and at the check-in: what it " +
			"takes at least to tell how long connections are\nheld. Beside that managedpg may cost 100 ns, and 50 for each further call that " +
			"database/sql makes of the driver in a checkout.\nns are of CPU time, the garbage collector's included, with GOMAXPROCS=1: nothing waits here, and " +
			"others on the machine don't count.",
		now:   cpu,
		procs: 1,
		workloads: []workload{
			exec("SELECT 1"), execCancellable("SELECT 1"), query("Query", "SELECT 1"), queryRow("SELECT $1"),
			preparedExec("SELECT $1"), preparedQueryRow("SELECT $1"), tx("SELECT 1"),
		},
		comparisons: []comparison{
			{subject: limited("bare", bare, sized), against: bare},
			{subject: unkept, against: bare},
			{subject: floor, against: bare},
			{subject: bySQL, against: bare},
			{subject: bySQL, against: floor, budget: above(100)},
			{subject: byUs, against: bare, budget: limit(300, 0)},
			{subject: byUs, against: unkept},
			{subject: bySQLLeak, against: bySQL, budget: limit(100, 0)},
			{subject: byUsLeak, against: byUs, budget: limit(100, 0)},
		},
		full:  effort{rounds: 12, each: 150 * time.Millisecond, block: time.Millisecond, count: 5000},
		quick: effort{rounds: 3, each: 50 * time.Millisecond, block: time.Millisecond, count: 2000},
		stop:  func() {},
	}
}

func bareFake() (*sql.DB, error) { return sql.OpenDB(fake{}), nil }
