package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// warm leaves n free connections in the pool.
func warm(t *testing.T, db *sql.DB, n int) {
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
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		once := &managedpg.TxOptions{ResolveCommit: true}
		again := &managedpg.TxOptions{ResolveCommit: true, Retries: 1}
		warm(t, r.db, 2)
		if err := r.inTx(t.Context(), once, insert1(nothing)); err != nil {
			t.Error(err)
		}
		r.want(1, 1)

		for _, do := range []pgtest.Action{pgtest.Reset, pgtest.Fatal("57P01")} {
			// It took place.
			warm(t, r.db, 2)
			r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: do})
			if err := r.inTx(t.Context(), again, insert1(nothing)); err != nil {
				t.Error(err)
			}
			r.want(1, 1)
			// It didn't.
			warm(t, r.db, 2)
			r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: do, Before: true})
			if err := r.inTx(t.Context(), again, insert1(nothing)); err != nil {
				t.Error(err)
			}
			r.want(2, 1)
			warm(t, r.db, 2)
			r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: do, Before: true})
			err := r.inTx(t.Context(), once, insert1(nothing))
			r.wantErr(err, managedpg.ErrTxLost)
			if errors.Is(err, managedpg.ErrOutcomeUnknown) {
				t.Errorf("got %v", err)
			}
			r.want(1, 0)
		}

		// Its context ends meanwhile: it hangs after it took place, and on its way. The server doesn't know that nobody will
		// answer it, so its session has to be ended.
		warm(t, r.db, 2)
		ctx, cancel := context.WithCancel(t.Context())
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Hang, Hook: cancel})
		if err := r.inTx(ctx, again, insert1(nothing)); err != nil {
			t.Error(err)
		}
		r.want(1, 1)
		warm(t, r.db, 2)
		ctx, cancel = context.WithCancel(t.Context())
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Hang, Before: true, Hook: cancel})
		err := r.inTx(ctx, again, insert1(nothing))
		r.wantErr(err, managedpg.ErrTxLost, context.Canceled)
		r.want(1, 0)
		r.proxy.Release()

		// The connection is lost while the id is asked for: nothing has been committed.
		warm(t, r.db, 2)
		r.proxy.Arm(pgtest.Fault{On: pgtest.OnText("if_assigned()::text, pg_catalog.pg_backend_pid()::text, (extract"), Do: pgtest.Reset})
		if err := r.inTx(t.Context(), again, insert1(nothing)); err != nil {
			t.Error(err)
		}
		r.want(2, 1)

		// A statement has failed: there is nothing to ask for.
		err = r.inTx(t.Context(), again, insert1(func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, "SELECT 1/0")
			return nil
		}))
		wantSQLState(t, c, err, "22012")
		r.want(1, 0)

		// READ ONLY, it isn't asked.
		r.proxy.ResetCounts()
		err = r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: sql.TxOptions{ReadOnly: true}, ResolveCommit: true}, nothing)
		if err != nil {
			t.Error(err)
		}
		if n := r.proxy.RoundTrips(); n > 3 { // and a ping
			t.Errorf("%d round trips: %q", n, r.proxy.Queries())
		}
	})
}

func TestResolveCommitHonestly(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		opts := &managedpg.TxOptions{ResolveCommit: true}
		r.db.SetMaxIdleConns(1) // where database/sql governs
		pool, _ := managedpg.PoolOf(r.db)

		// No connection is older.
		for _, before := range []bool{false, true} {
			pool.Drain()
			r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset, Before: before})
			err := r.inTx(t.Context(), opts, insert1(nothing))
			if before {
				r.wantErr(err, managedpg.ErrTxLost)
				r.want(1, 0)
				continue
			}
			r.wantErr(err, managedpg.ErrOutcomeUnknown)
			var lost *conn.LostError
			if !errors.As(err, &lost) || lost.XID == 0 || !strings.Contains(err.Error(), "older") {
				t.Errorf("got %v", err)
			} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.OutcomeUnknown || err == nil {
				t.Errorf("later: %v, %v", outcome, err)
			}
			r.want(1, 1)
		}
		// It has written nothing.
		r.db.SetMaxIdleConns(2)
		warm(t, r.db, 2)
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset})
		err := r.inTx(t.Context(), opts, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "NOTIFY x")
			return err
		})
		r.wantErr(err, managedpg.ErrOutcomeUnknown)
		r.want(1, 0)

		// One who doesn't ask for it has no id.
		warm(t, r.db, 2)
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset})
		err = r.inTx(t.Context(), nil, insert1(nothing))
		var lost *conn.LostError
		if !errors.As(err, &lost) || lost.XID != 0 {
			t.Errorf("got %v", err)
		} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.OutcomeUnknown || err == nil {
			t.Errorf("got %v, %v", outcome, err)
		}
		r.want(1, 1)

		// The context ends while the only older connection is asked: the evidence isn't lost with it.
		warm(t, r.db, 2)
		stmt := preparedOnTwo(t, r.db)
		ctx, cancel := context.WithCancel(t.Context())
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset, Hook: func() {
			r.proxy.Arm(pgtest.Fault{On: pgtest.OnText("pg_xact_status("), Do: pgtest.Hang, Hook: cancel})
		}})
		err = r.inTx(ctx, opts, insert1(nothing))
		r.wantErr(err, managedpg.ErrOutcomeUnknown)
		// It is free as far as database/sql knows, whose next call waits for it no longer than its own context lets it.
		if !c.governed {
			soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := r.db.ExecContext(soon, "SELECT 1")
			stop()
			r.wantErr(err, context.DeadlineExceeded)
		}
		if err := stmt.Close(); err != nil { // nor does this wait, for which database/sql stops all of the pool
			t.Error(err)
		}
		r.proxy.Release()
		if !errors.As(err, &lost) {
			t.Errorf("got %v", err)
		} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.Committed || err != nil {
			t.Errorf("the older connection was interrupted: %v, %v", outcome, err)
		}
		r.want(1, 1)
		if n := value[int](t, r.db, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 1'"); !c.governed && n > 0 {
			t.Errorf("a connection with %d forgotten statements is used", n)
		}

		// With a second one that nobody could hear any more: it isn't asked.
		r.db.SetMaxIdleConns(3)
		warm(t, r.db, 3)
		ctx, cancel = context.WithCancel(t.Context())
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset, Hook: func() {
			r.proxy.Arm(pgtest.Fault{On: pgtest.OnText("pg_xact_status("), Do: pgtest.Hang, Hook: cancel})
		}})
		r.proxy.ResetCounts()
		r.wantErr(r.inTx(ctx, opts, insert1(nothing)), managedpg.ErrOutcomeUnknown)
		r.proxy.Release()
		asked := slices.DeleteFunc(r.proxy.Queries(), func(q string) bool { return !strings.Contains(q, "pg_xact_status(") })
		if len(asked) != 1 {
			t.Errorf("%d were asked", len(asked))
		}
		r.want(1, 1)
		r.db.SetMaxIdleConns(2)

		// A plain user can, too, and when it suits him.
		warm(t, r.db, 2)
		tx, err := r.db.BeginTx(conn.WithAttempt(t.Context(), &conn.Attempt{Resolve: true}), nil)
		if err != nil {
			t.Fatal(err)
		}
		mustExec(t, tx, "INSERT INTO t VALUES (1)")
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset})
		if err := tx.Commit(); !errors.As(err, &lost) || lost.XID == 0 {
			t.Errorf("got %v", err)
		} else if outcome, err := lost.Resolve(t.Context()); outcome != conn.Committed || err != nil {
			t.Errorf("got %v, %v", outcome, err)
		}
		r.runs = 1
		r.want(1, 1)
	})
	t.Run("another driver", func(t *testing.T) {
		db, err := sql.Open("pgx", pgtest.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := managedpg.InTx(t.Context(), db, &managedpg.TxOptions{ResolveCommit: true}, nothing); err == nil {
			t.Error("no error")
		}
	})
}

// TestResolveCommitAsksTheMonitor has a pool of a single connection: with several endpoints the monitor keeps one of its own.
func TestResolveCommitAsksTheMonitor(t *testing.T) {
	for _, c := range combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
			db := open(t, c.dsn(proxy.DSN(dsn), "failover_urls="+url.QueryEscape(dsn), "health_check_interval=200ms"))
			mustExec(t, db, "CREATE TABLE t (k int)")
			pool, _ := managedpg.PoolOf(db)
			for range 3 { // probes go on meanwhile
				pool.CheckNow(t.Context())
				pool.Drain()
				proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset})
				if err := managedpg.InTx(t.Context(), db, &managedpg.TxOptions{ResolveCommit: true}, insert1(nothing)); err != nil {
					t.Error(err)
				}
			}
			if n := value[int](t, db, "SELECT count(*) FROM t"); n != 3 {
				t.Errorf("%d rows", n)
			}
		})
	}
}

// TestResolveCommitAfterACrash lets the server lose the transaction's id, and give it to somebody who commits.
func TestResolveCommitAfterACrash(t *testing.T) {
	for _, c := range combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			server := pgtest.Start(t)
			if err := server.Exec("CREATE TABLE t (k int)"); err != nil {
				t.Fatal(err)
			}
			proxy := pgtest.NewProxy(t, server.Addr())
			db := open(t, c.dsn(proxy.DSN(server.DSN())))
			warm(t, db, 2)
			reused := ""
			for try := 0; ; try++ {
				proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset, Before: true, Hook: func() {
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
					mine = value[string](t, tx, "SELECT pg_current_xact_id()::text")
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
				warm(t, db, 2)
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
	eventually(t, "the standby is synchronous", func() bool {
		state, err := primary.QueryString("SELECT sync_state FROM pg_stat_replication")
		return err == nil && state == "sync"
	})
	for _, c := range combinations {
		t.Run(c.String(), func(t *testing.T) {
			proxy := pgtest.NewProxy(t, primary.Addr())
			db := open(t, c.dsn(proxy.DSN(primary.DSN())))
			// The connection is lost while COMMIT waits for the standby, which is silent.
			commit := func(ctx context.Context, then func()) error {
				warm(t, db, 2)
				proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset, NoWait: true, Hook: func() {
					eventually(t, "COMMIT waits for the standby", func() bool {
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
