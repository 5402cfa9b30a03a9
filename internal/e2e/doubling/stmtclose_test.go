package doubling_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A prepared call's deadline on a server that has stopped is told as soon as any call's, although its statement is closed with the connection.
func TestPreparedCallOnAHungServer(t *testing.T) {
	c := pgtest.Start(t)
	dsn := c.DSNFor("postgres", "health_check=false")
	for _, comb := range rig.Combinations {
		t.Run(comb.String(), func(t *testing.T) {
			took := func(call func(context.Context, *sql.DB, *sql.Stmt) error) time.Duration {
				db := rig.Open(t, comb.DSN(dsn))
				st, err := db.Prepare("SELECT 1")
				rig.NoError(t, err)
				rig.NoError(t, call(t.Context(), db, st))
				rig.NoError(t, c.Freeze())
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if err := call(ctx, db, st); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				took := time.Since(start)
				rig.NoError(t, c.Thaw())
				return took
			}
			plain := took(func(ctx context.Context, db *sql.DB, _ *sql.Stmt) error {
				_, err := db.ExecContext(ctx, "SELECT 1")
				return err
			})
			prepared := took(func(ctx context.Context, _ *sql.DB, st *sql.Stmt) error { _, err := st.ExecContext(ctx); return err })
			if prepared > plain+400*time.Millisecond {
				t.Errorf("told after %v, one that isn't prepared after %v", prepared, plain)
			}
		})
	}
}

// A COPY of lib/pq's whose context ends in the middle of a row costs no connection when it is closed.
func TestCopyWhoseContextEnds(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		if c.Base != "pq" {
			return // pgx has no COPY by Exec
		}
		rig.Exec(t, db, "CREATE UNLOGGED TABLE copied (a text)")
		conn, err := db.Conn(t.Context())
		rig.NoError(t, err)
		defer conn.Close()
		pid := rig.Value[int](t, conn, "SELECT pg_backend_pid()")
		for i := range 30 {
			tx, err := conn.BeginTx(t.Context(), nil)
			rig.NoError(t, err)
			st, err := tx.Prepare("COPY copied (a) FROM STDIN")
			rig.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond+time.Duration(i)*37*time.Microsecond)
			for err == nil {
				_, err = st.ExecContext(ctx, strings.Repeat("x", 20))
			}
			cancel()
			_ = st.Close() // it was cancelled, or wasn't
			_ = tx.Rollback()
			if now := rig.Value[int](t, conn, "SELECT pg_backend_pid()"); now != pid {
				t.Fatalf("%d: the connection was lost", i)
			}
		}
	})
}

// Rows that are still read end with their context, whatever else is closed on the connection meanwhile.
func TestRowsEndBesideAClosedStatement(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		if !c.Governed {
			return // its Close sends something, which no driver takes while rows are open
		}
		tx, err := db.Begin()
		rig.NoError(t, err)
		defer tx.Rollback()
		other, err := tx.Prepare("SELECT 1")
		rig.NoError(t, err)
		_, err = tx.Prepare("SELECT 1") // which keeps it from being freed
		rig.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		start := time.Now()
		rows, err := tx.QueryContext(ctx, "SELECT repeat('x', 10000), pg_sleep(0.05) FROM generate_series(1, 100)")
		rig.NoError(t, err)
		rig.NoError(t, other.Close())
		for rows.Next() {
		}
		_ = rows.Close()
		if took := time.Since(start); took > 2500*time.Millisecond { // of 5 s that it would take
			t.Errorf("%v after %v", rows.Err(), took)
		}
	})
}
