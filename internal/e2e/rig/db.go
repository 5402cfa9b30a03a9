package rig

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Open is sql.Open of managedpg for as long as the test runs.
func Open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	return OpenWith(t, "managedpg", dsn)
}

// Exec executes a statement on a sql.DB, sql.Conn or sql.Tx.
func Exec(t *testing.T, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// Value is the one value that a query returns.
func Value[T any](t *testing.T, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, query string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRowContext(context.Background(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// OpenConfig opens what a DSN says and change changes.
func OpenConfig(t *testing.T, dsn string, change func(*managedpg.Config)) *sql.DB {
	t.Helper()
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	change(cfg)
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// OpenQuietly opens a pool that logs nothing, for tests that are about nothing but outages.
func OpenQuietly(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	return OpenConfig(t, dsn, func(cfg *managedpg.Config) { cfg.Logger = slog.New(slog.DiscardHandler) })
}

// OpenWith is Open with another driver.
func OpenWith(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// PoolOf is the pool behind a sql.DB of ours.
func PoolOf(t *testing.T, db *sql.DB) *managedpg.Pool {
	t.Helper()
	p, ok := managedpg.PoolOf(db)
	if !ok {
		t.Fatal("no pool behind the sql.DB")
	}
	return p
}

// Warm leaves n free connections in the pool.
func Warm(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	var held []*sql.Conn
	for range n {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// LegacyConnector is what database/sql makes of a driver without connectors.
type LegacyConnector struct {
	Via driver.Driver
	DSN string
}

func (c LegacyConnector) Connect(context.Context) (driver.Conn, error) { return c.Via.Open(c.DSN) }

func (c LegacyConnector) Driver() driver.Driver { return c.Via }

// Standby is a standby for as long as the test runs.
func Standby(t *testing.T, of *pgtest.Cluster, opts ...pgtest.Option) *pgtest.Cluster {
	t.Helper()
	s, err := of.Standby(opts...)
	NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
