package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestInTxContextEnds(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		opts := &managedpg.TxOptions{Retries: 5}
		// Before BEGIN.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.InTx(ctx, opts, rig.Insert1(rig.Nothing)); err != context.Canceled {
			t.Errorf("before BEGIN: %v", err)
		}
		r.Want(0, 0)

		// In fn, which returns nil, its own error, or the statement's.
		mine := errors.New("mine")
		for _, returned := range []error{nil, mine} {
			ctx, cancel = context.WithCancel(t.Context())
			err := r.InTx(ctx, opts, rig.Insert1(func(context.Context, *sql.Tx) error {
				cancel()
				return returned
			}))
			if returned == nil {
				returned = context.Canceled
			}
			if err != returned {
				t.Errorf("in fn: got %v, want %v", err, returned)
			}
			r.Want(1, 0)
		}
		ctx, cancel = context.WithCancel(t.Context())
		err := r.InTx(ctx, opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			time.AfterFunc(50*time.Millisecond, cancel)
			_, err := tx.ExecContext(ctx, "SELECT pg_sleep(30)")
			return err
		}))
		r.WantErr(err, context.Canceled)
		r.Want(1, 0)

		// A deadline of fn's own isn't tried again.
		err = r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			_, err := tx.ExecContext(ctx, "SELECT pg_sleep(30)")
			return err
		}))
		r.WantErr(err, context.DeadlineExceeded)
		r.Want(1, 0)

		// With a failure after which fn would have run again.
		conflict := &pgconn.PgError{Severity: "ERROR", Code: "40001", Message: "could not serialize access"}
		ctx, cancel = context.WithCancel(t.Context())
		err = r.InTx(ctx, opts, rig.Insert1(func(context.Context, *sql.Tx) error {
			cancel()
			return conflict
		}))
		r.WantErr(err, context.Canceled, conflict)
		r.Want(1, 0)

		// While it waits for another try.
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		r.Proxy.SetDown(true)
		r.Proxy.ResetAll()
		err = r.InTx(ctx, &managedpg.TxOptions{Retries: 1000}, rig.Insert1(rig.Nothing))
		r.Proxy.SetDown(false)
		cancel()
		r.WantErr(err, context.DeadlineExceeded)
		r.Want(0, 0)

		// During COMMIT: which has run, and which hasn't.
		for _, before := range []bool{false, true} {
			ctx, cancel = context.WithCancel(t.Context())
			r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Hang, Before: before, Hook: cancel})
			err := r.InTx(ctx, opts, rig.Insert1(rig.Nothing))
			r.WantErr(err, context.Canceled, managedpg.ErrOutcomeUnknown)
			rows := 1
			if before {
				rows = 0
			}
			r.Proxy.Release()
			r.Want(1, rows)
		}

		pool, _ := managedpg.PoolOf(r.DB)
		rig.Eventually(t, "nothing is checked out", func() bool { return pool.Stats().CheckedOut == 0 })
	})
}

func TestInTxIgnoredErrors(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		opts := &managedpg.TxOptions{Retries: 5}
		err := r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			_, _ = tx.ExecContext(ctx, "SELECT 1/0")
			_, _ = tx.ExecContext(ctx, "INSERT INTO t VALUES (2)")
			return nil
		}))
		rig.WantSQLState(t, c, err, "22012")
		r.Want(1, 0)
		// Undone by a savepoint it is none.
		err = r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			rig.Exec(t, tx, "SAVEPOINT s")
			_, _ = tx.ExecContext(ctx, "SELECT 1/0")
			rig.Exec(t, tx, "ROLLBACK TO SAVEPOINT s")
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2)")
			return err
		}))
		if err != nil {
			t.Error(err)
		}
		r.Want(1, 2)
		// Deferred, it comes from COMMIT.
		err = r.InTx(t.Context(), opts, rig.Insert1(rig.Insert1(rig.Nothing)))
		rig.WantSQLState(t, c, err, "23505")
		r.Want(1, 0)
	})
}

func TestInTxEndedByItsFunction(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		opts := &managedpg.TxOptions{Retries: 5}
		lost := fmt.Errorf("later: %w", managedpg.ErrTxLost)
		for _, end := range []struct {
			name     string
			by       func(*sql.Tx) error
			returned error
			rows     int
			silent   bool // InTx returns nil
		}{
			{"commit", (*sql.Tx).Commit, nil, 1, true},
			{"commit, then an error", (*sql.Tx).Commit, lost, 1, false},
			{"rollback", (*sql.Tx).Rollback, nil, 0, false},
			{"COMMIT", text("COMMIT"), nil, 1, false},
			{"COMMIT, then an error", text("COMMIT"), lost, 1, false},
			{"END behind a statement", text("SELECT 1; END"), lost, 1, false},
			{"COMMIT AND CHAIN, then an error", text("COMMIT AND CHAIN"), lost, 1, false},
			{"COMMIT, BEGIN, then an error", text("COMMIT; BEGIN"), lost, 1, false},
			{"ROLLBACK", text("ROLLBACK"), nil, 0, false},
			{"ROLLBACK, then a row outside", text("ROLLBACK; INSERT INTO t VALUES (7)"), lost, 1, false},
			{"COMMIT in a failing text", text("COMMIT; SELECT 1/0"), lost, 1, false},
		} {
			err := r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
				if err := end.by(tx); err != nil && !strings.Contains(end.name, "failing") {
					t.Errorf("%s: %v", end.name, err)
				}
				return end.returned
			}))
			if end.silent != (err == nil) || end.returned != nil && !errors.Is(err, end.returned) {
				t.Errorf("%s: got %v", end.name, err)
			}
			if errors.Is(err, managedpg.ErrOutcomeUnknown) {
				t.Errorf("%s: got %v", end.name, err)
			}
			r.Want(1, end.rows)
		}
		// It rolled back itself: that may be tried again.
		err := r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			if r.Runs > 1 {
				return nil
			}
			if err := tx.Rollback(); err != nil {
				t.Error(err)
			}
			return lost
		}))
		if err != nil {
			t.Error(err)
		}
		r.Want(2, 1)
		// Its own COMMIT, or COMMIT as text, was not answered.
		for name, by := range map[string]func(*sql.Tx) error{"commit": (*sql.Tx).Commit, "COMMIT": text("COMMIT")} {
			for _, returned := range []error{nil, errors.New("mine"), managedpg.ErrTxLost} {
				r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset})
				err := r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
					if by(tx) == nil {
						t.Errorf("%s: no error", name)
					}
					return returned
				}))
				r.WantErr(err, managedpg.ErrOutcomeUnknown)
				if returned != nil {
					r.WantErr(err, returned)
				}
				r.Want(1, 1)
			}
		}
		pool, _ := managedpg.PoolOf(r.DB)
		rig.Eventually(t, "nothing is checked out", func() bool { return pool.Stats().CheckedOut == 0 })
		// What looks like an end and is none.
		err = r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "SELECT 'a; COMMIT'")
			return err
		}))
		if err != nil {
			t.Error(err)
		}
		r.Want(1, 1)
	})
}

func text(query string) func(*sql.Tx) error {
	return func(tx *sql.Tx) error {
		_, err := tx.Exec(query)
		return err
	}
}

func TestInTxNested(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		other := rig.Open(t, c.DSN(pgtest.Database(t)))
		rig.Exec(t, other, "CREATE TABLE t (k int)")
		var kept context.Context
		err := r.InTx(t.Context(), nil, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			kept = ctx
			inner := func(context.Context, *sql.Tx) error {
				t.Error("the inner function ran")
				return nil
			}
			if err := managedpg.InTx(ctx, r.DB, nil, inner); err == nil || !strings.Contains(err.Error(), "InTx inside") {
				t.Errorf("got %v", err)
			}
			return managedpg.InTx(ctx, other, nil, rig.Insert1(func(ctx context.Context, _ *sql.Tx) error {
				if err := managedpg.InTx(ctx, r.DB, nil, inner); err == nil || !strings.Contains(err.Error(), "InTx inside") {
					t.Errorf("two levels down: got %v", err)
				}
				return nil
			}))
		}))
		if err != nil {
			t.Error(err)
		}
		r.Want(1, 1)
		if n := rig.Value[int](t, other, "SELECT count(*) FROM t"); n != 1 {
			t.Errorf("%d rows in the other database", n)
		}
		if err := managedpg.InTx(kept, r.DB, nil, rig.Insert1(rig.Nothing)); err != nil {
			t.Errorf("once the outer one is over: %v", err)
		}
		r.Want(1, 1)
	})
}
