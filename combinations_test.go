package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// combination is one of the four ways to run managedpg: each base driver, under each governor of the pool.
type combination struct {
	base     string
	governed bool
}

var combinations = []combination{{"pgx", false}, {"pgx", true}, {"pq", false}, {"pq", true}}

func (c combination) String() string {
	if c.governed {
		return c.base + ",pool_size"
	}
	return c.base
}

// dsn adds the combination's keys, and others, to a URL.
func (c combination) dsn(url string, more ...string) string {
	keys := []string{"base_driver=" + c.base}
	if c.governed {
		keys = append(keys, "pool_size=8")
	}
	return withKeys(url, append(keys, more...)...)
}

func withKeys(url string, keys ...string) string {
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	return url + sep + strings.Join(keys, "&")
}

// inEachCombination runs a test on a database of its own through each of the four.
func inEachCombination(t *testing.T, f func(t *testing.T, c combination, db *sql.DB)) {
	for _, c := range combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			f(t, c, open(t, c.dsn(pgtest.Database(t))))
		})
	}
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func mustExec(t *testing.T, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func value[T any](t *testing.T, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, query string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRowContext(context.Background(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// wantSQLState wants the base driver's own error in err.
func wantSQLState(t *testing.T, c combination, err error, code string) {
	t.Helper()
	var pgErr *pgconn.PgError
	var pqErr *pq.Error
	switch {
	case c.base == "pgx" && errors.As(err, &pgErr) && pgErr.Code == code:
	case c.base == "pq" && errors.As(err, &pqErr) && string(pqErr.Code) == code:
	default:
		t.Errorf("want the base driver's error with SQLSTATE %s, got %v", code, err)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15s: %s", what)
		}
	}
}
