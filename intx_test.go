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

// txRig is a database with a table of one column, behind a proxy, and how often InTx's function ran.
type txRig struct {
	*testing.T
	db     *sql.DB // through the proxy
	direct *sql.DB
	proxy  *pgtest.Proxy
	runs   int
}

// inTxEach runs a test with both base drivers and both policies.
func inTxEach(t *testing.T, test func(t *testing.T, c combination, r *txRig)) {
	for _, c := range combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			r := &txRig{T: t, proxy: pgtest.NewProxy(t, pgtest.Shared(t).Addr()), direct: open(t, dsn)}
			r.db = open(t, c.dsn(r.proxy.DSN(dsn)))
			mustExec(t, r.direct, "CREATE TABLE t (k int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
			test(t, c, r)
		})
	}
}

// inTx is InTx that counts.
func (r *txRig) inTx(ctx context.Context, opts *managedpg.TxOptions, fn func(context.Context, *sql.Tx) error) error {
	r.runs = 0
	return managedpg.InTx(ctx, r.db, opts, func(ctx context.Context, tx *sql.Tx) error {
		r.runs++
		return fn(ctx, tx)
	})
}

// insert1 inserts a row, and then does what more says.
func insert1(more func(context.Context, *sql.Tx) error) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err != nil {
			return err
		}
		return more(ctx, tx)
	}
}

func nothing(context.Context, *sql.Tx) error { return nil }

// want checks how often fn ran and how many rows it left, and removes them.
func (r *txRig) want(runs, rows int) {
	r.Helper()
	if r.runs != runs {
		r.Errorf("the function ran %d times, want %d", r.runs, runs)
	}
	if n := value[int](r.T, r.direct, "SELECT count(*) FROM t"); n != rows {
		r.Errorf("%d rows, want %d", n, rows)
	}
	mustExec(r.T, r.direct, "DELETE FROM t")
}

func (r *txRig) wantErr(err error, wanted ...error) {
	r.Helper()
	for _, w := range wanted {
		if !errors.Is(err, w) {
			r.Errorf("got %v, want %v in it", err, w)
		}
	}
}

func TestInTx(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		if err := r.inTx(t.Context(), nil, insert1(nothing)); err != nil {
			t.Error(err)
		}
		r.want(1, 1)
		mine := errors.New("mine")
		if err := r.inTx(t.Context(), nil, insert1(func(context.Context, *sql.Tx) error { return mine })); err != mine {
			t.Errorf("got %v", err)
		}
		r.want(1, 0)
		opts := &managedpg.TxOptions{TxOptions: sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true}, Retries: 3}
		err := r.inTx(t.Context(), opts, func(ctx context.Context, tx *sql.Tx) error {
			if level := value[string](t, tx, "SHOW transaction_isolation"); level != "serializable" {
				t.Errorf("isolation %q", level)
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)")
			return err
		})
		wantSQLState(t, c, err, "25006")
		r.want(1, 0)
	})
}

func TestInTxPanics(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		func() {
			defer func() {
				if v := recover(); v != "boom" {
					t.Errorf("recovered %v", v)
				}
			}()
			_ = r.inTx(t.Context(), &managedpg.TxOptions{Retries: 3}, insert1(func(context.Context, *sql.Tx) error { panic("boom") }))
			t.Error("the panic didn't go on")
		}()
		r.want(1, 0)

		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = r.inTx(t.Context(), &managedpg.TxOptions{Retries: 3}, insert1(func(context.Context, *sql.Tx) error {
				runtime.Goexit()
				return nil
			}))
			t.Error("Goexit didn't go on")
		}()
		<-gone
		r.want(1, 0)
		pool, _ := managedpg.PoolOf(r.db)
		eventually(t, "nothing is checked out", func() bool { return pool.Stats().CheckedOut == 0 })
	})
}

func TestInTxRetriesConflicts(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		serializable := sql.TxOptions{Isolation: sql.LevelRepeatableRead}
		mustExec(t, r.direct, "CREATE TABLE n (id int, v int)")
		mustExec(t, r.direct, "INSERT INTO n VALUES (1, 0), (2, 0)")
		conflict := func(times int) func(context.Context, *sql.Tx) error {
			return func(ctx context.Context, tx *sql.Tx) error {
				v := value[int](t, tx, "SELECT v FROM n WHERE id = 1")
				if r.runs <= times {
					mustExec(t, r.direct, "UPDATE n SET v = v + 100 WHERE id = 1")
				}
				if _, err := tx.ExecContext(ctx, "UPDATE n SET v = $1 WHERE id = 1", v+1); err != nil {
					return fmt.Errorf("wrapped: %w", err)
				}
				return nil
			}
		}
		if err := r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 2}, conflict(2)); err != nil {
			t.Error(err)
		}
		r.want(3, 0)
		if v := value[int](t, r.direct, "SELECT v FROM n WHERE id = 1"); v != 201 {
			t.Errorf("v is %d", v)
		}
		err := r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 1}, conflict(2))
		wantSQLState(t, c, err, "40001")
		r.want(2, 0)
		err = r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable}, conflict(1))
		wantSQLState(t, c, err, "40001")
		r.want(1, 0)
		// Hidden from InTx, the error is fn's own.
		mine := errors.New("mine")
		err = r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			if conflict(1)(ctx, tx) != nil {
				return mine
			}
			return nil
		})
		if err != mine {
			t.Errorf("got %v", err)
		}
		r.want(1, 0)
		// Ignored, it is found at COMMIT.
		err = r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: serializable, Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			_ = conflict(1)(ctx, tx)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		r.want(2, 0)

		// Two that wait for each other's rows: one of them is run again.
		var group sync.WaitGroup
		var met sync.WaitGroup
		met.Add(2)
		runs := make([]int, 2)
		for i := range 2 {
			group.Go(func() {
				err := managedpg.InTx(t.Context(), r.db, &managedpg.TxOptions{Retries: 5}, func(ctx context.Context, tx *sql.Tx) error {
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
		if v := value[int](t, r.direct, "SELECT v FROM n WHERE id = 2"); v != 2000 {
			t.Errorf("v is %d", v)
		}

		// One that COMMIT meets.
		mustExec(t, r.direct, "CREATE TABLE s (v int)")
		isolation := sql.TxOptions{Isolation: sql.LevelSerializable}
		err = r.inTx(t.Context(), &managedpg.TxOptions{TxOptions: isolation, Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			n := value[int](t, tx, "SELECT count(*) FROM s")
			if r.runs == 1 {
				other, err := r.direct.BeginTx(ctx, &isolation)
				if err != nil {
					return err
				}
				n := value[int](t, other, "SELECT count(*) FROM s")
				mustExec(t, other, "INSERT INTO s VALUES ($1)", n)
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
		r.want(2, 0)
	})
}

func TestInTxRetriesLostConnections(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
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
			fn := insert1(func(ctx context.Context, tx *sql.Tx) error {
				rows, err := tx.QueryContext(ctx, "SELECT 5 UNION ALL SELECT 6")
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
				}
				return rows.Err()
			})
			r.proxy.Arm(fault)
			if err := r.inTx(t.Context(), again, fn); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			runs := 2
			if strings.HasPrefix(name, "BEGIN") {
				runs = 1
			}
			r.want(runs, 1)
			r.proxy.Arm(fault)
			err := r.inTx(t.Context(), nil, fn)
			if strings.HasPrefix(name, "BEGIN") {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				r.want(1, 1)
				continue
			}
			r.wantErr(err, managedpg.ErrTxLost)
			r.want(1, 0)

			// An fn that ignores it learns it from COMMIT.
			r.proxy.Arm(fault)
			err = r.inTx(t.Context(), again, func(ctx context.Context, tx *sql.Tx) error {
				_ = fn(ctx, tx)
				return nil
			})
			if err != nil {
				t.Errorf("%s, ignored: %v", name, err)
			}
			r.want(2, 1)
		}
	})
}

// TestInTxMeetsNobody restarts the only server there is.
func TestInTxMeetsNobody(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		r.proxy.SetDown(true)
		err := r.inTx(t.Context(), &managedpg.TxOptions{Retries: 1}, insert1(nothing))
		if err == nil {
			t.Error("no error")
		}
		r.want(0, 0)
		time.AfterFunc(50*time.Millisecond, func() { r.proxy.SetDown(false) })
		if err := r.inTx(t.Context(), &managedpg.TxOptions{Retries: 20}, insert1(nothing)); err != nil {
			t.Error(err)
		}
		r.want(1, 1)
		// Half way through.
		err = r.inTx(t.Context(), &managedpg.TxOptions{Retries: 20}, insert1(func(context.Context, *sql.Tx) error {
			if r.runs == 1 {
				r.proxy.SetDown(true)
				r.proxy.ResetAll()
				time.AfterFunc(50*time.Millisecond, func() { r.proxy.SetDown(false) })
			}
			return nil
		}))
		if err != nil {
			t.Error(err)
		}
		r.want(2, 1)
	})
}

func TestInTxUnknownCommitRunsOnce(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		opts := &managedpg.TxOptions{Retries: 5}
		for _, before := range []bool{false, true} {
			r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset, Before: before})
			r.wantErr(r.inTx(t.Context(), opts, insert1(nothing)), managedpg.ErrOutcomeUnknown)
			rows := 1
			if before {
				rows = 0
			}
			r.want(1, rows)
		}
	})
}

// NOTIFY is allowed in a READ ONLY transaction, and is sent with its COMMIT.
func TestInTxUnknownCommitOfNotify(t *testing.T) {
	inTxEach(t, func(t *testing.T, c combination, r *txRig) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		listener, err := r.direct.Conn(ctx)
		do(t, err)
		defer listener.Close()
		mustExec(t, listener, "LISTEN c")
		opts := &managedpg.TxOptions{TxOptions: sql.TxOptions{ReadOnly: true}, Retries: 5}
		r.proxy.Arm(pgtest.Fault{On: onCommitOf, Do: pgtest.Reset})
		r.wantErr(r.inTx(ctx, opts, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "SELECT pg_notify('c', 'once')")
			return err
		}), managedpg.ErrOutcomeUnknown)
		r.want(1, 0)
		mustExec(t, r.direct, "NOTIFY c, 'last'")
		do(t, listener.Raw(func(c any) error {
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

func onCommitOf(m pgtest.Message) bool {
	return (m.Type == 'Q' || m.Type == 'E') && strings.EqualFold(m.Text, "commit")
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
			mustExec(t, db, "CREATE TABLE t (k int)")
			r := &txRig{T: t, db: db, direct: open(t, dsn)}
			opts := &managedpg.TxOptions{Retries: 5}
			if err := r.inTx(t.Context(), opts, insert1(nothing)); err != nil {
				t.Error(err)
			}
			r.want(1, 1)
			err = r.inTx(t.Context(), opts, insert1(func(ctx context.Context, tx *sql.Tx) error {
				_, _ = tx.ExecContext(ctx, "SELECT 1/0")
				return nil
			}))
			if err == nil {
				t.Error("no error")
			}
			r.want(1, 0)
			serialization := errors.New("x")
			for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
				for _, returned := range []error{nil, serialization} {
					err := r.inTx(t.Context(), opts, insert1(func(ctx context.Context, tx *sql.Tx) error {
						if err := end(tx); err != nil {
							t.Error(err)
						}
						return returned
					}))
					if err == nil {
						t.Error("no error")
					}
					if r.runs != 1 {
						t.Errorf("ran %d times", r.runs)
					}
				}
			}
		})
	}
}
