package main

import (
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/managedpg/managedpg/bench/internal/peers"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func postgresSection() (table, error) {
	c, stop, err := serve(apart)
	if err != nil {
		return nil, err
	}
	s := &section{
		name: "PostgreSQL",
		about: "Over loopback TCP, one call at a time, equal idle limits. Leak detection is off, but for \"defaults\", which is\n" +
			"everything as it is without a key in the DSN. " + c.about + "\n\n" +
			"Where sqlmw is ahead: its interceptor does nothing and keeps no figures, managedpg reads the clock twice and counts. " +
			"Where pgxpool\nis: with a transaction its one checkout is spread over three round trips. After each wait for the server " +
			"the caches are cold, so what\ncosts 0.1 µs on the fake driver costs several times that here.",
		workloads: []workload{
			exec("SELECT 1"), query("Query", "SELECT 1"), queryRow("SELECT $1::bigint"), preparedQueryRow("SELECT $1::bigint"),
			tx("SELECT 1"), query(thousand, "SELECT generate_series(1, 1000)"),
		},
		full:  effort{rounds: 80, each: 100 * time.Millisecond, block: 2 * time.Millisecond, count: 1000},
		quick: effort{rounds: 3, each: 80 * time.Millisecond, block: 2 * time.Millisecond, count: 200},
	}
	return s.alone(c, stop), nil
}

// unpinnedSection is what users have who run client and server on one machine, and leave everything at its default.
func unpinnedSection() (table, error) {
	c, stop, err := serve(together)
	if err != nil {
		return nil, err
	}
	s := &section{
		name: "PostgreSQL, unpinned",
		about: "The same with client and server left to the system, on all cores, and managedpg with everything at its default, leak " +
			"detection\nincluded. Whether the two share a core makes a round trip several times as long, and the system changes its " +
			"mind about it.",
		workloads: []workload{
			exec("SELECT 1"), query("Query", "SELECT 1"), queryRow("SELECT $1::bigint"), preparedQueryRow("SELECT $1::bigint"),
			tx("SELECT 1"), query(thousand, "SELECT generate_series(1, 1000)"),
		},
		full:  effort{rounds: 80, each: 100 * time.Millisecond, block: 2 * time.Millisecond, count: 1000},
		quick: effort{rounds: 3, each: 80 * time.Millisecond, block: 2 * time.Millisecond, count: 200},
	}
	return s.shared(c, stop), nil
}

func tlsSection() (table, error) {
	c, stop, err := serve(apart)
	if err != nil {
		return nil, err
	}
	if err := c.Encrypt(); err != nil {
		stop()
		return nil, err
	}
	s := &section{
		name:      "PostgreSQL, TLS",
		about:     "The same with sslmode=require, more roughly.",
		workloads: []workload{exec("SELECT 1"), preparedQueryRow("SELECT $1::bigint"), query(thousand, "SELECT generate_series(1, 1000)")},
		full:      effort{rounds: 20, each: 100 * time.Millisecond, block: 2 * time.Millisecond, count: 1000},
		quick:     effort{rounds: 2, each: 80 * time.Millisecond, block: 2 * time.Millisecond, count: 200},
	}
	return s.alone(c, stop, "sslmode=require"), nil
}

// thousand is the workload whose cost is the rows', which managedpg doesn't touch.
const thousand = "Query, 1000 rows"

// server is a PostgreSQL.
type server struct {
	*pgtest.Cluster
	about string
}

// serve starts one, on a core of its own or not.
func serve(where func(start func() error) (undo func(), done bool, err error)) (s server, stop func(), err error) {
	undo, alone, err := where(func() (err error) {
		s.Cluster, err = pgtest.New()
		return err
	})
	if err != nil {
		return s, nil, err
	}
	stop = func() {
		undo()
		_ = s.Close()
	}
	version, err := s.QueryString("SHOW server_version")
	if err != nil {
		stop()
		return s, nil, err
	}
	s.about = "PostgreSQL " + version + ". Client and server are left to the system, which makes rows noisy."
	if alone {
		s.about = "PostgreSQL " + version + ". The client has one core and the server another, as if on machines of their own."
	}
	return s, stop, nil
}

// together starts a server and leaves the rest to the system.
func together(start func() error) (undo func(), done bool, err error) {
	return func() {}, false, start()
}

// ratios are budgets of a call and of a thousand rows, whose cost managedpg doesn't touch; more is for the section as a whole.
func ratios(call, more float64) func(*workload) budget {
	return func(w *workload) budget {
		if w.name == thousand {
			return budget{ratio: 1.005 + more}
		}
		return budget{ratio: call + more}
	}
}

// alone compares everybody on a server that has a core of its own, and the client another.
func (s *section) alone(c server, stop func(), params ...string) *section {
	dsn := func(more ...string) string { return c.DSNFor("postgres", append(more, params...)...) }
	var (
		size    = fmt.Sprintf("pool_size=%d", poolSize)
		noLeaks = "leak_detection=false"
		pgx     = registered("bare pgx", "pgx", dsn())
		floor   = least(func() (driver.Connector, error) { return pgxConnector(dsn()) })
		pq      = registered("bare pq", "postgres", dsn())
		bySQL   = registered("by database/sql", "managedpg", dsn(noLeaks))
		byUs    = registered("by the driver", "managedpg", dsn(noLeaks, size))
		pqSQL   = registered("pq, by database/sql", "managedpg", dsn(noLeaks, "base_driver=pq"))
		pqUs    = registered("pq, by the driver", "managedpg", dsn(noLeaks, size, "base_driver=pq"))
		allSQL  = registered("by database/sql, defaults", "managedpg", dsn())
		allUs   = registered("by the driver, defaults", "managedpg", dsn(size))
		more    = 0.0
	)
	if len(params) > 0 {
		more = 0.01 // under TLS
	}
	s.now, s.procs, s.stop = wall, 1, stop
	s.comparisons = append([]comparison{
		{subject: registered("bare pgx", "pgx", dsn()), against: pgx},
		{subject: floor, against: pgx},
		{subject: bySQL, against: pgx, budget: ratios(1.01, more)},
		{subject: byUs, against: pgx, budget: ratios(1.015, more)},
		{subject: allSQL, against: pgx, budget: ratios(1.01, more)},
		{subject: allUs, against: pgx, budget: ratios(1.02, more)},
	}, besides(dsn(), pgx, bySQL, byUs, pq, pqSQL, pqUs)...)
	return s
}

// shared compares everybody on a server that shares the cores with the client.
func (s *section) shared(c server, stop func()) *section {
	dsn := func(more ...string) string { return c.DSNFor("postgres", more...) }
	var (
		size   = fmt.Sprintf("pool_size=%d", poolSize)
		pgx    = registered("bare pgx", "pgx", dsn())
		floor  = least(func() (driver.Connector, error) { return pgxConnector(dsn()) })
		pq     = registered("bare pq", "postgres", dsn())
		allSQL = registered("by database/sql, defaults", "managedpg", dsn())
		allUs  = registered("by the driver, defaults", "managedpg", dsn(size))
		pqSQL  = registered("pq, by database/sql", "managedpg", dsn("base_driver=pq"))
		pqUs   = registered("pq, by the driver", "managedpg", dsn(size, "base_driver=pq"))
	)
	s.now, s.stop = wall, stop
	s.comparisons = append([]comparison{
		{subject: registered("bare pgx", "pgx", dsn()), against: pgx},
		{subject: floor, against: pgx},
		{subject: allSQL, against: pgx, budget: ratios(1.02, 0)},
		{subject: allUs, against: pgx, budget: ratios(1.03, 0)},
	}, besides(dsn(), pgx, allSQL, allUs, pq, pqSQL, pqUs)...)
	return s
}

// besides are the peers, each with whom of us it has to be slower than, and lib/pq.
func besides(dsn string, pgx, bySQL, byUs, pq, pqSQL, pqUs *subject) []comparison {
	return []comparison{
		{subject: pgxpool(dsn), against: pgx, rival: byUs, rough: true},
		{subject: wrapped("sqlmw", peers.Sqlmw, dsn), against: pgx, rival: bySQL, rough: true},
		{subject: wrapped("otelsql", peers.Otelsql, dsn), against: pgx, rival: bySQL, rough: true},
		{subject: pq, against: pgx, rough: true},
		{subject: pqSQL, against: pq, rough: true},
		{subject: pqUs, against: pq, rough: true},
	}
}
