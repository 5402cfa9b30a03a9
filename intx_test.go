package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func ExampleInTx() {
	db, err := sql.Open("managedpg", "postgres://app@db1,db2/shop?pool_size=10")
	if err != nil {
		return
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// Run again on the new primary if the old one dies before COMMIT was sent.
	err = managedpg.InTx(ctx, db, &managedpg.TxOptions{
		TxOptions: sql.TxOptions{Isolation: sql.LevelSerializable},
		Retries:   5,
	}, func(ctx context.Context, tx *sql.Tx) error {
		var stock int
		if err := tx.QueryRowContext(ctx, "SELECT stock FROM item WHERE id = $1", 7).Scan(&stock); err != nil {
			return err
		}
		if stock == 0 {
			return errors.New("sold out") // rolls back, and is what InTx returns
		}
		_, err := tx.ExecContext(ctx, "UPDATE item SET stock = $1 WHERE id = $2", stock-1, 7)
		return err
	})
	switch {
	case err == nil:
		fmt.Println("sold")
	case errors.Is(err, managedpg.ErrOutcomeUnknown):
		fmt.Println("COMMIT was sent and not answered: sold, or not")
	default:
		fmt.Println("not sold:", err)
	}
}

func TestInTx(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		if err := r.InTx(t.Context(), nil, rig.Insert1(rig.Nothing)); err != nil {
			t.Error(err)
		}
		r.Want(1, 1)
		mine := errors.New("mine")
		if err := r.InTx(t.Context(), nil, rig.Insert1(func(context.Context, *sql.Tx) error { return mine })); err != mine {
			t.Errorf("got %v", err)
		}
		r.Want(1, 0)
		opts := &managedpg.TxOptions{TxOptions: sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true}, Retries: 3}
		err := r.InTx(t.Context(), opts, func(ctx context.Context, tx *sql.Tx) error {
			if level := rig.Value[string](t, tx, "SHOW transaction_isolation"); level != "serializable" {
				t.Errorf("isolation %q", level)
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)")
			return err
		})
		rig.WantSQLState(t, c, err, "25006")
		r.Want(1, 0)
	})
}

func TestInTxPanics(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		func() {
			defer func() {
				if v := recover(); v != "boom" {
					t.Errorf("recovered %v", v)
				}
			}()
			_ = r.InTx(t.Context(), &managedpg.TxOptions{Retries: 3}, rig.Insert1(func(context.Context, *sql.Tx) error { panic("boom") }))
			t.Error("the panic didn't go on")
		}()
		r.Want(1, 0)

		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = r.InTx(t.Context(), &managedpg.TxOptions{Retries: 3}, rig.Insert1(func(context.Context, *sql.Tx) error {
				runtime.Goexit()
				return nil
			}))
			t.Error("Goexit didn't go on")
		}()
		<-gone
		r.Want(1, 0)
		pool, _ := managedpg.PoolOf(r.DB)
		rig.Eventually(t, "nothing is checked out", func() bool { return pool.Stats().CheckedOut == 0 })
	})
}

func TestInTxRetriesConflicts(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		serializable := sql.TxOptions{Isolation: sql.LevelRepeatableRead}
		rig.Exec(t, r.Direct, "CREATE TABLE n (id int, v int)")
		rig.Exec(t, r.Direct, "INSERT INTO n VALUES (1, 0), (2, 0)")
		conflict := func(times int) func(context.Context, *sql.Tx) error {
			return func(ctx context.Context, tx *sql.Tx) error {
				v := rig.Value[int](t, tx, "SELECT v FROM n WHERE id = 1")
				if r.Runs <= times {
					rig.Exec(t, r.Direct, "UPDATE n SET v = v + 100 WHERE id = 1")
				}
				if _, err := tx.ExecContext(ctx, "UPDATE n SET v = $1 WHERE id = 1", v+1); err != nil {
					return fmt.Errorf("wrapped: %w", err)
				}
				return nil
			}
		}
		if err := r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 2}, conflict(2)); err != nil {
			t.Error(err)
		}
		r.Want(3, 0)
		if v := rig.Value[int](t, r.Direct, "SELECT v FROM n WHERE id = 1"); v != 201 {
			t.Errorf("v is %d", v)
		}
		err := r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 1}, conflict(2))
		rig.WantSQLState(t, c, err, "40001")
		r.Want(2, 0)
		err = r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable}, conflict(1))
		rig.WantSQLState(t, c, err, "40001")
		r.Want(1, 0)
		// Hidden from InTx, the error is fn's own.
		mine := errors.New("mine")
		err = r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			if conflict(1)(ctx, tx) != nil {
				return mine
			}
			return nil
		})
		if err != mine {
			t.Errorf("got %v", err)
		}
		r.Want(1, 0)
		// Ignored, it is found at COMMIT.
		err = r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			_ = conflict(1)(ctx, tx)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		r.Want(2, 0)

		// Two that wait for each other's rows: one of them is run again.
		var group sync.WaitGroup
		var met sync.WaitGroup
		met.Add(2)
		runs := make([]int, 2)
		for i := range 2 {
			group.Go(func() {
				err := managedpg.InTx(t.Context(), r.DB, &managedpg.TxOptions{Retries: 5}, func(ctx context.Context, tx *sql.Tx) error {
					runs[i]++
					if _, err := tx.ExecContext(ctx, "UPDATE n SET v = v + 1000 WHERE id = $1", 1+i); err != nil {
						return err
					}
					if runs[i] == 1 {
						met.Done()
						met.Wait()
					}
					_, err := tx.ExecContext(ctx, "UPDATE n SET v = v + 1000 WHERE id = $1", 2-i)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if runs[0]+runs[1] < 3 {
			t.Errorf("ran %v times", runs)
		}
		if v := rig.Value[int](t, r.Direct, "SELECT v FROM n WHERE id = 2"); v != 2000 {
			t.Errorf("v is %d", v)
		}

		// One that COMMIT meets.
		rig.Exec(t, r.Direct, "CREATE TABLE s (v int)")
		isolation := sql.TxOptions{Isolation: sql.LevelSerializable}
		err = r.InTx(t.Context(), &managedpg.TxOptions{TxOptions: isolation, Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			n := rig.Value[int](t, tx, "SELECT count(*) FROM s")
			if r.Runs == 1 {
				other, err := r.Direct.BeginTx(ctx, &isolation)
				if err != nil {
					return err
				}
				n := rig.Value[int](t, other, "SELECT count(*) FROM s")
				rig.Exec(t, other, "INSERT INTO s VALUES ($1)", n)
				if _, err := tx.ExecContext(ctx, "INSERT INTO s VALUES ($1)", n); err != nil {
					return err
				}
				return other.Commit()
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO s VALUES ($1)", n)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		r.Want(2, 0)
	})
}

func TestInTxRetriesLostConnections(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		again := &managedpg.TxOptions{Retries: 1}
		for name, fault := range map[string]pgtest.Fault{
			"statement, reset":     {On: pgtest.OnText("INSERT"), Do: pgtest.Reset},
			"statement, unsent":    {On: pgtest.OnText("INSERT"), Do: pgtest.Reset, Before: true},
			"statement, 57P01":     {On: pgtest.OnText("INSERT"), Do: pgtest.Fatal("57P01")},
			"statement, closed":    {On: pgtest.OnText("INSERT"), Do: pgtest.CloseQuietly},
			"the last before it":   {On: pgtest.OnText("SELECT 5"), Do: pgtest.Reset},
			"amid rows":            {On: pgtest.OnText("SELECT 5"), Do: pgtest.AnswerUntil('D')},
			"BEGIN, reset":         {On: func(m pgtest.Message) bool { return strings.EqualFold(m.Text, "begin") && m.Type != 'P' }, Do: pgtest.Reset},
			"BEGIN, 57P03 instead": {On: func(m pgtest.Message) bool { return strings.EqualFold(m.Text, "begin") && m.Type != 'P' }, Do: pgtest.Fatal("57P03")},
		} {
			fn := rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
				rows, err := tx.QueryContext(ctx, "SELECT 5 UNION ALL SELECT 6")
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
				}
				return rows.Err()
			})
			r.Proxy.Arm(fault)
			if err := r.InTx(t.Context(), again, fn); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			runs := 2
			if strings.HasPrefix(name, "BEGIN") {
				runs = 1
			}
			r.Want(runs, 1)
			r.Proxy.Arm(fault)
			err := r.InTx(t.Context(), nil, fn)
			if strings.HasPrefix(name, "BEGIN") {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				r.Want(1, 1)
				continue
			}
			r.WantErr(err, managedpg.ErrTxLost)
			r.Want(1, 0)

			// An fn that ignores it learns it from COMMIT.
			r.Proxy.Arm(fault)
			err = r.InTx(t.Context(), again, func(ctx context.Context, tx *sql.Tx) error {
				_ = fn(ctx, tx)
				return nil
			})
			if err != nil {
				t.Errorf("%s, ignored: %v", name, err)
			}
			r.Want(2, 1)
		}
	})
}

// TestInTxMeetsNobody restarts the only server there is.
func TestInTxMeetsNobody(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		r.Proxy.SetDown(true)
		err := r.InTx(t.Context(), &managedpg.TxOptions{Retries: 1}, rig.Insert1(rig.Nothing))
		if err == nil {
			t.Error("no error")
		}
		r.Want(0, 0)
		time.AfterFunc(50*time.Millisecond, func() { r.Proxy.SetDown(false) })
		if err := r.InTx(t.Context(), &managedpg.TxOptions{Retries: 20}, rig.Insert1(rig.Nothing)); err != nil {
			t.Error(err)
		}
		r.Want(1, 1)
		// Half way through.
		err = r.InTx(t.Context(), &managedpg.TxOptions{Retries: 20}, rig.Insert1(func(context.Context, *sql.Tx) error {
			if r.Runs == 1 {
				r.Proxy.SetDown(true)
				r.Proxy.ResetAll()
				time.AfterFunc(50*time.Millisecond, func() { r.Proxy.SetDown(false) })
			}
			return nil
		}))
		if err != nil {
			t.Error(err)
		}
		r.Want(2, 1)
	})
}

func TestInTxUnknownCommitRunsOnce(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		opts := &managedpg.TxOptions{Retries: 5}
		for _, before := range []bool{false, true} {
			r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset, Before: before})
			r.WantErr(r.InTx(t.Context(), opts, rig.Insert1(rig.Nothing)), managedpg.ErrOutcomeUnknown)
			rows := 1
			if before {
				rows = 0
			}
			r.Want(1, rows)
		}
	})
}

// NOTIFY is allowed in a READ ONLY transaction, and is sent with its COMMIT.
func TestInTxUnknownCommitOfNotify(t *testing.T) {
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		listener, err := r.Direct.Conn(ctx)
		rig.NoError(t, err)
		defer listener.Close()
		rig.Exec(t, listener, "LISTEN c")
		opts := &managedpg.TxOptions{TxOptions: sql.TxOptions{ReadOnly: true}, Retries: 5}
		r.Proxy.Arm(pgtest.Fault{On: rig.OnCommit, Do: pgtest.Reset})
		r.WantErr(r.InTx(ctx, opts, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "SELECT pg_notify('c', 'once')")
			return err
		}), managedpg.ErrOutcomeUnknown)
		r.Want(1, 0)
		rig.Exec(t, r.Direct, "NOTIFY c, 'last'")
		rig.NoError(t, listener.Raw(func(c any) error {
			pg := managedpg.Unwrap(c).(*stdlib.Conn).Conn()
			for _, want := range []string{"once", "last"} {
				n, err := pg.WaitForNotification(ctx)
				if err != nil {
					return err
				}
				if n.Payload != want {
					t.Errorf("%s came, want %s", n.Payload, want)
				}
			}
			return nil
		}))
	})
}

func TestInTxOfAnotherDriver(t *testing.T) {
	for base, driver := range map[string]string{"pgx": "pgx", "pq": "postgres"} {
		t.Run(base, func(t *testing.T) {
			dsn := pgtest.Database(t)
			db, err := sql.Open(driver, dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			rig.Exec(t, db, "CREATE TABLE t (k int)")
			r := &rig.TxRig{T: t, DB: db, Direct: rig.Open(t, dsn)}
			opts := &managedpg.TxOptions{Retries: 5}
			if err := r.InTx(t.Context(), opts, rig.Insert1(rig.Nothing)); err != nil {
				t.Error(err)
			}
			r.Want(1, 1)
			err = r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
				_, _ = tx.ExecContext(ctx, "SELECT 1/0")
				return nil
			}))
			if err == nil {
				t.Error("no error")
			}
			r.Want(1, 0)
			serialization := errors.New("x")
			for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
				for _, returned := range []error{nil, serialization} {
					err := r.InTx(t.Context(), opts, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
						if err := end(tx); err != nil {
							t.Error(err)
						}
						return returned
					}))
					if err == nil {
						t.Error("no error")
					}
					if r.Runs != 1 {
						t.Errorf("ran %d times", r.Runs)
					}
				}
			}
		})
	}
}
