package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// poolSize is pool_size of the subjects that the driver governs.
const poolSize = 8

// fakeSubject is managedpg on the fake driver. The Config is that of a DSN: with everything at its default.
func fakeSubject(name string, change func(*managedpg.Config)) *subject {
	return &subject{name, func() (*sql.DB, error) {
		cfg, err := managedpg.ParseDSN("host=localhost")
		if err != nil {
			return nil, err
		}
		cfg.Endpoints = []driver.Connector{fake{}}
		change(cfg)
		return managedpg.OpenDB(cfg)
	}}
}

func fakeSection() (*section, error) {
	var (
		bare      = &subject{"bare", func() (*sql.DB, error) { return sql.OpenDB(fake{}), nil }}
		again     = &subject{"bare", bare.open}
		unkept    = &subject{"bare, none kept", func() (*sql.DB, error) { return sql.OpenDB(&unkept{}), nil }}
		bySQL     = fakeSubject("by database/sql", func(c *managedpg.Config) { c.LeakDetection = false })
		bySQLLeak = fakeSubject("by database/sql, leaks", func(*managedpg.Config) {})
		byUs      = fakeSubject("by the driver", func(c *managedpg.Config) { c.PoolSize, c.LeakDetection = poolSize, false })
		byUsLeak  = fakeSubject("by the driver, leaks", func(c *managedpg.Config) { c.PoolSize = poolSize })
	)
	limit := func(ns, allocs float64) func(*workload) budget {
		return func(*workload) budget { return budget{ns: ns, allocs: allocs, counted: true} }
	}
	return &section{
		name: "fake",
		about: "A base driver that does nothing, serial; a call is one checkout. \"by\" says who governs the pool (pool_size absent " +
			"or present);\nleak detection is off unless \"leaks\" stands there, with the default depth. \"none kept\" is a driver " +
			"whose connections\ndatabase/sql may not keep, and always the same one: what database/sql itself spends when the " +
			"driver governs.\nns are of CPU time, the garbage collector's included, with GOMAXPROCS=1: nothing waits here, and " +
			"others on the machine don't count.",
		now:   cpu,
		procs: 1,
		workloads: []workload{
			exec("SELECT 1"), execCancellable("SELECT 1"), query("SELECT 1"), queryRow("SELECT $1"),
			preparedExec("SELECT $1"), preparedQueryRow("SELECT $1"), tx("SELECT 1"),
		},
		comparisons: []comparison{
			{again, bare, noBudget},
			{unkept, bare, noBudget},
			{bySQL, bare, limit(100, 0)},
			{byUs, bare, limit(700, 6)},
			{byUs, unkept, noBudget},
			{bySQLLeak, bySQL, limit(1000, 0)},
			{byUsLeak, byUs, limit(1000, 0)},
		},
		full:  effort{rounds: 12, each: 150 * time.Millisecond, block: time.Millisecond, count: 5000},
		quick: effort{rounds: 3, each: 50 * time.Millisecond, block: time.Millisecond, count: 2000},
		close: func() {},
	}, nil
}

// registered is a subject behind sql.Open.
func registered(name, driverName, dsn string) *subject {
	return &subject{name, func() (*sql.DB, error) { return sql.Open(driverName, dsn) }}
}

func postgresSection() (*section, error) {
	var cluster *pgtest.Cluster
	together, apart, err := apart(func() (err error) {
		cluster, err = pgtest.New()
		return err
	})
	if err != nil {
		return nil, err
	}
	cores := "Client and server are left to the system, which makes rows noisy."
	if apart {
		cores = "The client has one core and the server another, as if on machines of their own."
	}
	dsn := func(params ...string) string { return cluster.DSNFor("postgres", params...) }
	var (
		size    = fmt.Sprintf("pool_size=%d", poolSize)
		noLeaks = "leak_detection=false"
		pgx     = registered("bare pgx", "pgx", dsn())
		pq      = registered("bare pq", "postgres", dsn())
		pgxDB   = registered("by database/sql", "managedpg", dsn(noLeaks))
		pgxUs   = registered("by the driver", "managedpg", dsn(noLeaks, size))
		pqDB    = registered("pq, by database/sql", "managedpg", dsn(noLeaks, "base_driver=pq"))
		pqUs    = registered("pq, by the driver", "managedpg", dsn(noLeaks, size, "base_driver=pq"))
		allDB   = registered("by database/sql, defaults", "managedpg", dsn())
		allUs   = registered("by the driver, defaults", "managedpg", dsn(size))
	)
	limit := func(ratio, prepared float64) func(*workload) budget {
		return func(w *workload) budget {
			if w.prepared {
				return budget{ratio: prepared}
			}
			return budget{ratio: ratio}
		}
	}
	version, err := serverVersion(pgx)
	if err != nil {
		_ = cluster.Close()
		return nil, err
	}
	return &section{
		name: "PostgreSQL",
		about: "PostgreSQL " + version + " over loopback TCP, one call at a time, equal idle limits. Leak detection is off, but " +
			"for \"defaults\", which is\neverything as it is without a key in the DSN. " + cores,
		now:   wall,
		procs: 1,
		workloads: []workload{
			exec("SELECT 1"), queryRow("SELECT $1::bigint"), preparedQueryRow("SELECT $1::bigint"), tx("SELECT 1"),
		},
		comparisons: []comparison{
			{registered("bare pgx", "pgx", dsn()), pgx, noBudget},
			{pgxDB, pgx, limit(1.01, 1.01)},
			{pgxUs, pgx, limit(1.04, 1.06)},
			{allDB, pgx, limit(1.04, 1.04)},
			{allUs, pgx, limit(1.07, 1.07)},
			{pqDB, pq, noBudget},
			{pqUs, pq, noBudget},
		},
		full:  effort{rounds: 80, each: 100 * time.Millisecond, block: 2 * time.Millisecond, count: 1000},
		quick: effort{rounds: 3, each: 80 * time.Millisecond, block: 2 * time.Millisecond, count: 200},
		close: func() {
			together()
			_ = cluster.Close()
		},
	}, nil
}

func serverVersion(s *subject) (version string, err error) {
	db, err := s.open()
	if err != nil {
		return "", err
	}
	defer db.Close()
	err = db.QueryRowContext(context.Background(), "SHOW server_version").Scan(&version)
	return version, err
}
