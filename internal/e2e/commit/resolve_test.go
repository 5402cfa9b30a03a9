package commit_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	internalconn "github.com/managedpg/managedpg/internal/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// preparedOnTwo prepares a statement on two connections.
func preparedOnTwo(t *testing.T, db *sql.DB) *sql.Stmt {
	t.Helper()
	stmt, err := db.PrepareContext(t.Context(), "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	var txs []*sql.Tx
	for range 2 {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		txs = append(txs, tx)
		if _, err := tx.StmtContext(t.Context(), stmt).ExecContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, tx := range txs {
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	return stmt
}

func TestResolveCommit(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		once := &managedpg.TxOptions{ResolveCommit: true}
		again := &managedpg.TxOptions{ResolveCommit: true, Retries: 1}
		rig.Warm(t, r.DB, 2)
		if err := r.InTx(t.Context(), once, rig.Insert1(rig.Nothing)); err != nil {
			t.Error(err)
		}
		r.Want(1, 1)

		for _, do := range []pgtest.Action{pgtest.Reset, pgtest.Fatal("57P01")} {
			// It took place.
			rig.Warm(t, r.DB, 2)
			r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: do})
			if err := r.InTx(t.Context(), again, rig.Insert1(rig.Nothing)); err != nil {
				t.Error(err)
			}
			r.Want(1, 1)
			// It didn't.
			rig.Warm(t, r.DB, 2)
			r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: do, Before: true})
			if err := r.InTx(t.Context(), again, rig.Insert1(rig.Nothing)); err != nil {
				t.Error(err)
			}
			r.Want(2, 1)
			rig.Warm(t, r.DB, 2)
			r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: do, Before: true})
			err := r.InTx(t.Context(), once, rig.Insert1(rig.Nothing))
			r.WantErr(err, managedpg.ErrTxLost)
			if errors.Is(err, managedpg.ErrOutcomeUnknown) {
				t.Errorf("got %v", err)
			}
			r.Want(1, 0)
		}

		// Its context ends meanwhile: it hangs after it took place, and on its way. The server doesn't know that nobody will
		// answer it, so its session has to be ended.
		rig.Warm(t, r.DB, 2)
		ctx, cancel := context.WithCancel(t.Context())
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Hang, Hook: cancel})
		if err := r.InTx(ctx, again, rig.Insert1(rig.Nothing)); err != nil {
			t.Error(err)
		}
		r.Want(1, 1)
		rig.Warm(t, r.DB, 2)
		ctx, cancel = context.WithCancel(t.Context())
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Hang, Before: true, Hook: cancel})
		err := r.InTx(ctx, again, rig.Insert1(rig.Nothing))
		r.WantErr(err, managedpg.ErrTxLost, context.Canceled)
		r.Want(1, 0)
		r.Proxy.Release()

		// The connection is lost while the id is asked for: nothing has been committed.
		rig.Warm(t, r.DB, 2)
		r.Proxy.Arm(pgtest.Fault{On: pgtest.OnText("if_assigned()::text, pg_catalog.pg_backend_pid()::text, (extract"), Do: pgtest.Reset})
		if err := r.InTx(t.Context(), again, rig.Insert1(rig.Nothing)); err != nil {
			t.Error(err)
		}
		r.Want(2, 1)

		// A statement has failed: there is nothing to ask for.
		err = r.InTx(t.Context(), again, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, "SELECT 1/0")
			return nil
		}))
		rig.WantSQLState(t, c, err, "22012")
		r.Want(1, 0)

		// READ ONLY, it isn't asked.
		r.Proxy.ResetCounts()
		err = r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: sql.TxOptions{ReadOnly: true}, ResolveCommit: true}, rig.Nothing)
		if err != nil {
			t.Error(err)
		}
		if n := r.Proxy.RoundTrips(); n > 3 { // and a ping
			t.Errorf("%d round trips: %q", n, r.Proxy.Queries())
		}
	})
}

func TestResolveCommitHonestly(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		opts := &managedpg.TxOptions{ResolveCommit: true}
		r.DB.SetMaxIdleConns(1) // where database/sql governs
		pool, _ := managedpg.PoolOf(r.DB)

		// No connection is older.
		for _, before := range []bool{false, true} {
			pool.Drain()
			r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset, Before: before})
			err := r.InTx(t.Context(), opts, rig.Insert1(rig.Nothing))
			if before {
				r.WantErr(err, managedpg.ErrTxLost)
				r.Want(1, 0)
				continue
			}
			r.WantErr(err, managedpg.ErrOutcomeUnknown)
			var lost *conn.LostError
			if !errors.As(err, &lost) || lost.XID == 0 || !strings.Contains(err.Error(), "older") {
				t.Errorf("got %v", err)
			} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.OutcomeUnknown || err == nil {
				t.Errorf("later: %v, %v", outcome, err)
			}
			r.Want(1, 1)
		}
		// It has written nothing.
		r.DB.SetMaxIdleConns(2)
		rig.Warm(t, r.DB, 2)
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset})
		err := r.InTx(t.Context(), opts, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "NOTIFY x")
			return err
		})
		r.WantErr(err, managedpg.ErrOutcomeUnknown)
		r.Want(1, 0)

		// One who doesn't ask for it has no id.
		rig.Warm(t, r.DB, 2)
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset})
		err = r.InTx(t.Context(), nil, rig.Insert1(rig.Nothing))
		var lost *conn.LostError
		if !errors.As(err, &lost) || lost.XID != 0 {
			t.Errorf("got %v", err)
		} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.OutcomeUnknown || err == nil {
			t.Errorf("got %v, %v", outcome, err)
		}
		r.Want(1, 1)

		// The context ends while the only older connection is asked: the evidence isn't lost with it.
		rig.Warm(t, r.DB, 2)
		stmt := preparedOnTwo(t, r.DB)
		ctx, cancel := context.WithCancel(t.Context())
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset, Hook: func() {
			r.Proxy.Arm(pgtest.Fault{On: pgtest.OnText("pg_xact_status("), Do: pgtest.Hang, Hook: cancel})
		}})
		err = r.InTx(ctx, opts, rig.Insert1(rig.Nothing))
		r.WantErr(err, managedpg.ErrOutcomeUnknown)
		// It is free as far as database/sql knows, whose next call waits for it no longer than its own context lets it.
		if !c.Governed {
			soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := r.DB.ExecContext(soon, "SELECT 1")
			stop()
			r.WantErr(err, context.DeadlineExceeded)
		}
		if err := stmt.Close(); err != nil { // nor does this wait, for which database/sql stops all of the pool
			t.Error(err)
		}
		r.Proxy.Release()
		if !errors.As(err, &lost) {
			t.Errorf("got %v", err)
		} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.Committed || err != nil {
			t.Errorf("the older connection was interrupted: %v, %v", outcome, err)
		}
		r.Want(1, 1)
		if n := rig.Value[int](t, r.DB, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 1'"); !c.Governed && n > 0 {
			t.Errorf("a connection with %d forgotten statements is used", n)
		}

		// With a second one that nobody could hear any more: it isn't asked.
		r.DB.SetMaxIdleConns(3)
		rig.Warm(t, r.DB, 3)
		ctx, cancel = context.WithCancel(t.Context())
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset, Hook: func() {
			r.Proxy.Arm(pgtest.Fault{On: pgtest.OnText("pg_xact_status("), Do: pgtest.Hang, Hook: cancel})
		}})
		r.Proxy.ResetCounts()
		r.WantErr(r.InTx(ctx, opts, rig.Insert1(rig.Nothing)), managedpg.ErrOutcomeUnknown)
		r.Proxy.Release()
		asked := slices.DeleteFunc(r.Proxy.Queries(), func(q string) bool { return !strings.Contains(q, "pg_xact_status(") })
		if len(asked) != 1 {
			t.Errorf("%d were asked", len(asked))
		}
		r.Want(1, 1)
		r.DB.SetMaxIdleConns(2)

		// Its user may ask too, and when it suits him.
		rig.Warm(t, r.DB, 2)
		tx, err := r.DB.BeginTx(internalconn.WithAttempt(t.Context(), &internalconn.Attempt{Resolve: true}), nil)
		if err != nil {
			t.Fatal(err)
		}
		rig.Exec(t, tx, "INSERT INTO t VALUES (1)")
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset})
		if err := tx.Commit(); !errors.As(err, &lost) || lost.XID == 0 {
			t.Errorf("got %v", err)
		} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.Committed || err != nil {
			t.Errorf("got %v, %v", outcome, err)
		}
		r.Runs = 1
		r.Want(1, 1)
	})
	t.Run("another driver", func(t *testing.T) {
		db, err := sql.Open("pgx", pgtest.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := managedpg.InTx(t.Context(), db, &managedpg.TxOptions{ResolveCommit: true}, rig.Nothing); err == nil {
			t.Error("no error")
		}
	})
}

// TestResolveCommitAsksTheMonitor has a pool of a single connection: with several endpoints the monitor keeps one of its own.
func TestResolveCommitAsksTheMonitor(t *testing.T) {
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
			db := rig.Open(t, c.DSN(proxy.DSN(dsn), "failover_urls="+url.QueryEscape(dsn), "health_check_interval=200ms"))
			rig.Exec(t, db, "CREATE TABLE t (k int)")
			pool, _ := managedpg.PoolOf(db)
			for range 3 { // probes go on meanwhile
				pool.CheckNow(t.Context())
				pool.Drain()
				proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset})
				if err := managedpg.InTx(t.Context(), db, &managedpg.TxOptions{ResolveCommit: true}, rig.Insert1(rig.Nothing)); err != nil {
					t.Error(err)
				}
			}
			if n := rig.Value[int](t, db, "SELECT count(*) FROM t"); n != 3 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// TestResolveCommitAfterACrash lets the server lose the transaction's id, and give it to somebody who commits.
func TestResolveCommitAfterACrash(t *testing.T) {
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Start(t)
			if err := server.Exec("CREATE TABLE t (k int)"); err != nil {
				t.Fatal(err)
			}
			proxy := pgtest.NewProxy(t, server.Addr())
			db := rig.Open(t, c.DSN(proxy.DSN(server.DSN())))
			rig.Warm(t, db, 2)
			reused := ""
			for try := 0; ; try++ {
				proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset, Before: true, Hook: func() {
					for _, err := range []error{server.Kill(), server.Restart()} {
						if err != nil {
							t.Error(err)
						}
					}
					var err error
					if reused, err = server.QueryString("SELECT pg_current_xact_id()"); err != nil {
						t.Error(err)
					}
				}})
				mine := ""
				err := managedpg.InTx(t.Context(), db, &managedpg.TxOptions{ResolveCommit: true}, func(ctx context.Context, tx *sql.Tx) error {
					mine = rig.Value[string](t, tx, "SELECT pg_current_xact_id()::text")
					_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)")
					return err
				})
				if !errors.Is(err, managedpg.ErrOutcomeUnknown) && !errors.Is(err, managedpg.ErrTxLost) {
					t.Errorf("got %v", err)
				}
				<-proxy.Fired()
				if mine == reused {
					t.Logf("%s was handed out twice: %v", mine, err)
					break
				}
				if try == 10 {
					t.Errorf("the id %s was never handed out again", mine)
					break
				}
				rig.Warm(t, db, 2)
			}
		})
	}
}

// TestResolveCommitWithSynchronousStandby: committed means what an acknowledged COMMIT means.
func TestResolveCommitWithSynchronousStandby(t *testing.T) {
	primary := pgtest.Start(t)
	standby, err := primary.Standby()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Close() })
	err = primary.Exec("CREATE TABLE t (k int)", "ALTER SYSTEM SET wal_sender_timeout = 0",
		"ALTER SYSTEM SET synchronous_standby_names = '"+standby.Name()+"'", "SELECT pg_reload_conf()")
	if err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "the standby is synchronous", func() bool {
		state, err := primary.QueryString("SELECT sync_state FROM pg_stat_replication")
		return err == nil && state == "sync"
	})
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			proxy := pgtest.NewProxy(t, primary.Addr())
			db := rig.Open(t, c.DSN(proxy.DSN(primary.DSN())))
			// The connection is lost while COMMIT waits for the standby, which is silent.
			commit := func(ctx context.Context, then func()) error {
				rig.Warm(t, db, 2)
				proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset, NoWait: true, Hook: func() {
					rig.Eventually(t, "COMMIT waits for the standby", func() bool {
						n, err := primary.QueryString("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
						return err == nil && n == "1"
					})
					then()
				}})
				return managedpg.InTx(ctx, db, &managedpg.TxOptions{ResolveCommit: true}, func(ctx context.Context, tx *sql.Tx) error {
					if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err != nil {
						return err
					}
					return standby.Freeze()
				})
			}
			// It is in progress then, and is waited for.
			err := commit(t.Context(), func() { time.AfterFunc(300*time.Millisecond, func() { standby.Thaw() }) })
			if err != nil {
				t.Errorf("a standby that was late: %v", err)
			}
			// Its wait is cut short: it is on the primary, and may be nowhere else.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err = commit(ctx, func() {
				if _, err := primary.QueryString("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"); err != nil {
					t.Error(err)
				}
				time.AfterFunc(500*time.Millisecond, cancel)
			})
			if !errors.Is(err, managedpg.ErrOutcomeUnknown) {
				t.Errorf("a standby that never confirmed: %v", err)
			}
			if err := standby.Thaw(); err != nil {
				t.Fatal(err)
			}
			var lost *conn.LostError
			if errors.As(err, &lost) {
				if outcome, err := lost.Resolve(t.Context()); outcome != conn.Committed {
					t.Errorf("once the standby has it: %v, %v", outcome, err)
				}
			}
		})
	}
}
