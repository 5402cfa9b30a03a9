package doubling_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A statement crosses on the wire the server's word that the session was idle for too long (57P05, 25P03). The server never read
// it: outside a transaction it is tried again, and inside the transaction is rolled back, for certain. Bare pgx hands the error on.
func TestStatementCrossesAnIdleTimeout(t *testing.T) {
	var calls []lostCall
	for _, f := range insertForms {
		outside := f.lost()
		outside.want = nil
		inside := f.lostInTx()
		inside.inserted = 0
		calls = append(calls, outside, inside)
	}
	for _, end := range lostEnds {
		if slices.Contains([]string{"COMMIT", "COMMIT as text"}, end.name) {
			end.want, end.kept = managedpg.ErrTxLost, 0
			calls = append(calls, end)
		}
	}
	calls = slices.DeleteFunc(calls, func(c lostCall) bool { return c.name == "exec of three statements" })
	dsn := pgtest.Database(t)
	const limits = "&idle_session_timeout=1000&idle_in_transaction_session_timeout=1000"
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
			cross := pgtest.Fault{Do: pgtest.PassLastWords, Before: true}

			bare := openLossy(t, map[string]string{"pgx": "pgx", "pq": "postgres"}[c.Base], dsn, proxy.DSN(dsn), limits)
			bare.proxy = proxy
			_, _, err := bare.lose(t.Context(), insertForms[0].lost(), cross)
			t.Logf("outside a transaction the bare driver says: %v", err)

			params := limits + "&health_check=false&base_driver=" + c.Base
			if c.Governed {
				params += "&pool_size=4"
			}
			l := openLossy(t, "managedpg", dsn, proxy.DSN(dsn), params)
			l.base, l.governed, l.proxy = c.Base, c.Governed, proxy
			for _, call := range calls {
				t.Run(call.name, func(t *testing.T) {
					l := l.as(t)
					kept, inserted, err := l.lose(context.Background(), call, cross)
					l.wantError(err, call.want)
					l.wantRows(kept, inserted, call)
				})
			}
		})
	}
}

// A statement can raise that SQLSTATE too, after it has had effects.
func TestIdleTimeoutRaisedByAStatement(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		_, err := db.Exec("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '57P05'; END $$")
		rig.WantSQLState(t, c, err, "57P05")
		rig.Exec(t, db, "SELECT 1")
	})
}

// The same race without a proxy, against a server that ends each session after about as long as the application waits.
func TestIdleTimeoutRace(t *testing.T) {
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			direct := rig.Open(t, dsn)
			rig.Exec(t, direct, "CREATE TABLE t (k int)")
			db := rig.Open(t, c.DSN(dsn, "idle_session_timeout=5", "pool_pre_ping=false", "health_check=false"))
			const calls = 300
			failed := 0
			for k := range calls {
				if _, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES ($1)", k); err != nil {
					failed++
					t.Log(err)
				}
				time.Sleep(5*time.Millisecond - time.Duration(k)*3*time.Microsecond)
			}
			t.Logf("%d of %d calls failed; %d sessions", failed, calls, rig.PoolOf(t, db).Stats().TotalConnectionsCreated)
			if n := rig.Value[int](t, direct, "SELECT count(DISTINCT k) FROM t HAVING count(*) = count(DISTINCT k)"); n < calls-failed {
				t.Errorf("%d rows, want %d, each once", n, calls)
			}
		})
	}
}
