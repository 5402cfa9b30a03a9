package commit_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// openRows leaves the rows of a query open, with more of them to come.
func openRows(t *testing.T, q interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}) *sql.Rows {
	t.Helper()
	rows, err := q.QueryContext(t.Context(), "SELECT k FROM generate_series(1, 100000) AS k")
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal("no row: ", rows.Err())
	}
	return rows
}

// A statement sent while the rows of an earlier one are still open is the application's mistake: the transaction lives on, as it
// does under the bare driver, and nothing is held against the server.
func TestStatementWhileRowsAreOpen(t *testing.T) {
	calls := map[string]func(context.Context, *sql.Tx) error{
		"exec": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2)")
			return err
		},
		"exec with argument": func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES ($1)", 2)
			return err
		},
		"query": func(ctx context.Context, tx *sql.Tx) error {
			return tx.QueryRowContext(ctx, "INSERT INTO t VALUES (2) RETURNING k").Scan(new(int))
		},
		"prepare": func(ctx context.Context, tx *sql.Tx) error {
			st, err := tx.PrepareContext(ctx, "INSERT INTO t VALUES ($1)")
			if err != nil {
				return err
			}
			defer st.Close()
			_, err = st.ExecContext(ctx, 2)
			return err
		},
	}
	run := func(t *testing.T, name string, db *sql.DB, ours bool) (kept map[string]int) {
		kept = map[string]int{}
		for what, call := range calls {
			rig.Exec(t, db, "DELETE FROM t")
			tx, err := db.BeginTx(t.Context(), nil)
			rig.NoError(t, err)
			rig.Exec(t, tx, "INSERT INTO t VALUES (1)")
			rows := openRows(t, tx)
			err = call(t.Context(), tx)
			rows.Close()
			if ours {
				if err == nil || errors.Is(err, managedpg.ErrTxLost) || errors.Is(err, managedpg.ErrOutcomeUnknown) || errors.Is(err, driver.ErrBadConn) {
					t.Errorf("%s: %v", what, err)
				}
				if h := rig.PoolOf(t, db).Health().Endpoints[0]; h.State == failover.Suspect || h.State == failover.Down {
					t.Errorf("%s: the server is %s", what, h.State)
				}
			}
			if err := tx.Commit(); err == nil {
				kept[what] = rig.Value[int](t, db, "SELECT count(*) FROM t")
			}
			t.Logf("%s, %s: %v, %d rows kept", name, what, err, kept[what])
		}
		return kept
	}
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			dsn := pgtest.Database(t)
			bare, err := sql.Open(map[string]string{"pgx": "pgx", "pq": "postgres"}[c.Base], dsn)
			rig.NoError(t, err)
			defer bare.Close()
			rig.Exec(t, bare, "CREATE TABLE t (k int)")
			theirs := run(t, "bare", bare, false)
			ours := run(t, "managedpg", rig.Open(t, c.DSN(dsn)), true)
			for what := range calls {
				if ours[what] < theirs[what] {
					t.Errorf("%s: %d rows kept, and %d by the bare driver", what, ours[what], theirs[what])
				}
			}
		})
	}
}

// On a sql.Conn bare pgx waits for the rows to be closed, which this goroutine does only afterwards.
func TestConnWhileRowsAreOpen(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		conn, err := db.Conn(t.Context())
		rig.NoError(t, err)
		defer conn.Close()
		rows := openRows(t, conn)
		defer rows.Close()
		calls := map[string]func() error{
			"exec": func() error { _, err := conn.ExecContext(t.Context(), "SELECT 1"); return err },
		}
		if c.Base == "pgx" { // lib/pq, which sends these all the same, loses its place among the answers
			calls["begin"] = func() error { _, err := conn.BeginTx(t.Context(), nil); return err }
			calls["ping"] = func() error { return conn.PingContext(t.Context()) }
			calls["prepare"] = func() error { _, err := conn.PrepareContext(t.Context(), "SELECT 2"); return err }
		}
		for what, call := range calls {
			ended := make(chan error, 1)
			go func() { ended <- call() }()
			select {
			case err := <-ended:
				if err == nil || errors.Is(err, driver.ErrBadConn) {
					t.Errorf("%s: %v", what, err)
				}
				if want := "the rows of an earlier query"; c.Base == "pgx" && (err == nil || !strings.Contains(err.Error(), want)) {
					t.Errorf("%s: %v, want %q in it", what, err, want)
				}
			case <-time.After(10 * time.Second):
				rows.Close()
				t.Errorf("%s: waited for the rows: %v", what, <-ended)
			}
		}
		n := 1
		for rows.Next() {
			n++
		}
		if err := rows.Err(); err != nil || n != 100000 {
			t.Errorf("%d rows: %v", n, err)
		}
		rig.Exec(t, conn, "SELECT 1")
	})
}

func TestInTxWhileRowsAreOpenRunsOnce(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		err := r.InTx(t.Context(), &managedpg.TxOptions{Retries: 3}, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			rows := openRows(t, tx)
			defer rows.Close()
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2)")
			return err
		}))
		if err == nil || errors.Is(err, managedpg.ErrTxLost) {
			t.Error(err)
		}
		r.Want(1, 0)
	})
}
