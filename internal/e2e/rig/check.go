package rig

import (
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

// WantSQLState wants the base driver's own error with that SQLSTATE in err.
func WantSQLState(t *testing.T, c Combination, err error, code string) {
	t.Helper()
	var pgErr *pgconn.PgError
	var pqErr *pq.Error
	switch {
	case c.Base == "pgx" && errors.As(err, &pgErr) && pgErr.Code == code:
	case c.Base == "pq" && errors.As(err, &pqErr) && string(pqErr.Code) == code:
	default:
		t.Errorf("want the base driver's error with SQLSTATE %s, got %v", code, err)
	}
}

// Eventually waits for a condition, for 15 s.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15s: %s", what)
		}
	}
}

// NoError ends the test with an error.
func NoError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// SQLState is the SQLSTATE that the base driver's error has, or "".
func SQLState(err error) string {
	var s interface{ SQLState() string }
	if !errors.As(err, &s) {
		return ""
	}
	return s.SQLState()
}
