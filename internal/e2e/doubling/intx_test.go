package doubling_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A context that ends once its rows were read, as each query's own does in a transaction by a deferred cancel, is nothing to tell the server.
func TestContextsThatEndAfterTheirRows(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		tx, err := db.Begin()
		rig.NoError(t, err)
		for range 30 {
			ctx, cancel := context.WithCancel(t.Context())
			var n int
			rig.NoError(t, tx.QueryRowContext(ctx, "SELECT 1").Scan(&n))
			cancel()
			time.Sleep(time.Millisecond) // the program does something else
		}
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			st, err := tx.PrepareContext(t.Context(), "SELECT 1")
			rig.NoError(t, err)
			var n int
			rig.NoError(t, st.QueryRowContext(ctx).Scan(&n))
			cancel()
			time.Sleep(5 * time.Millisecond)
			rig.NoError(t, st.Close()) // nobody's rows are read by that
			time.Sleep(10 * time.Millisecond)
		}
		rig.NoError(t, tx.Commit())
		if s := rig.PoolOf(t, db).Stats(); s.CancelsSent != 0 {
			t.Errorf("%d calls were cancelled", s.CancelsSent)
		}
	})
}

// Rows that are still being read when their context ends are cancelled, in a transaction too, also by who takes his time with a row, which
// database/sql lets nobody take from him meanwhile.
func TestContextsThatEndInTheirRows(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		for _, pause := range []time.Duration{0, 600 * time.Millisecond} { // more than cancel_timeout
			tx, err := db.Begin()
			rig.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			rows, err := tx.QueryContext(ctx, "SELECT repeat('x', 1000), CASE WHEN n > 100 THEN pg_sleep(600) END FROM generate_series(1, 200) n")
			rig.NoError(t, err)
			defer rows.Close()
			var x, slept sql.RawBytes
			for range 10 {
				if !rows.Next() {
					t.Fatal(rows.Err())
				}
				rig.NoError(t, rows.Scan(&x, &slept))
			}
			cancel()
			time.Sleep(pause)
			for rows.Next() {
			}
			if rows.Err() == nil {
				t.Error("the rows have come to their end")
			}
			_ = rows.Close()
			_ = tx.Rollback()
		}
	})
}

// The end of a COPY that is closed, which lib/pq sends then, may take as long as it takes. A bare lib/pq waits for it too.
func TestCopyThatIsClosedTakesItsTime(t *testing.T) {
	url := pgtest.Database(t)
	db := rig.OpenWith(t, "postgres", url)
	rig.Exec(t, db, `CREATE TABLE slow(n int)`)
	rig.Exec(t, db, `CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END'`)
	rig.Exec(t, db, `CREATE TRIGGER sleeps AFTER INSERT ON slow FOR EACH STATEMENT EXECUTE FUNCTION sleeps()`)
	for _, c := range rig.Combinations {
		if c.Base != "pq" {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			db := rig.Open(t, c.DSN(url))
			tx, err := db.Begin()
			rig.NoError(t, err)
			st, err := tx.Prepare(`COPY slow(n) FROM STDIN`)
			rig.NoError(t, err)
			_, err = st.Exec(1)
			rig.NoError(t, err)
			rig.NoError(t, st.Close())
			rig.NoError(t, tx.Commit())
		})
	}
}
