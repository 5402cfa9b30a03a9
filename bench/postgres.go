package main

import (
	"fmt"
	"time"

	"github.com/managedpg/managedpg/bench/internal/peers"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func postgresSection() (table, error) {
	c, stop, err := serve()
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
	return s.over(c, stop), nil
}

func tlsSection() (table, error) {
	c, stop, err := serve()
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
	return s.over(c, stop, "sslmode=require"), nil
}

// thousand is the workload whose cost is the rows', which managedpg doesn't touch.
const thousand = "Query, 1000 rows"

// server is a PostgreSQL on a core of its own, where there are two.
type server struct {
	*pgtest.Cluster
	about string
}

func serve() (s server, stop func(), err error) {
	together, apart, err := apart(func() (err error) {
		s.Cluster, err = pgtest.New()
		return err
	})
	if err != nil {
		return s, nil, err
	}
	stop = func() {
		together()
		_ = s.Close()
	}
	version, err := s.QueryString("SHOW server_version")
	if err != nil {
		stop()
		return s, nil, err
	}
	s.about = "PostgreSQL " + version + ". Client and server are left to the system, which makes rows noisy."
	if apart {
		s.about = "PostgreSQL " + version + ". The client has one core and the server another, as if on machines of their own."
	}
	return s, stop, nil
}

// over compares everybody on a server.
func (s *section) over(c server, stop func(), params ...string) *section {
	dsn := func(more ...string) string { return c.DSNFor("postgres", append(more, params...)...) }
	var (
		size    = fmt.Sprintf("pool_size=%d", poolSize)
		noLeaks = "leak_detection=false"
		pgx     = registered("bare pgx", "pgx", dsn())
		pq      = registered("bare pq", "postgres", dsn())
		bySQL   = registered("by database/sql", "managedpg", dsn(noLeaks))
		byUs    = registered("by the driver", "managedpg", dsn(noLeaks, size))
		pqSQL   = registered("pq, by database/sql", "managedpg", dsn(noLeaks, "base_driver=pq"))
		pqUs    = registered("pq, by the driver", "managedpg", dsn(noLeaks, size, "base_driver=pq"))
		allSQL  = registered("by database/sql, defaults", "managedpg", dsn())
		allUs   = registered("by the driver, defaults", "managedpg", dsn(size))
	)
	limit := func(ratio, prepared float64) func(*workload) budget {
		return func(w *workload) budget {
			switch {
			case w.prepared:
				return budget{ratio: prepared}
			case w.name == thousand:
				return budget{ratio: 1, noise: true}
			}
			return budget{ratio: ratio}
		}
	}
	s.now, s.procs, s.stop = wall, 1, stop
	s.comparisons = []comparison{
		{subject: registered("bare pgx", "pgx", dsn()), against: pgx},
		{subject: bySQL, against: pgx, budget: limit(1.01, 1.01)},
		{subject: byUs, against: pgx, budget: limit(1.04, 1.06)},
		{subject: allSQL, against: pgx, budget: limit(1.04, 1.04)},
		{subject: allUs, against: pgx, budget: limit(1.07, 1.07)},
		{subject: pgxpool(dsn()), against: pgx, rival: byUs, rough: true},
		{subject: wrapped("sqlmw", peers.Sqlmw, dsn()), against: pgx, rival: bySQL, rough: true},
		{subject: wrapped("otelsql", peers.Otelsql, dsn()), against: pgx, rival: bySQL, rough: true},
		{subject: pq, against: pgx, rough: true},
		{subject: pqSQL, against: pq, rough: true},
		{subject: pqUs, against: pq, rough: true},
	}
	return s
}
