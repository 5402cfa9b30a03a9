package pool_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// database/sql keeps its connections from one checkout to the next, whatever physical connection each has.
func TestConnectionsAreKeptWithoutAPhysicalOne(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "base_driver="+base, "pool_size=1", "max_overflow=0"))
			st, err := db.Prepare("SELECT 1")
			rig.NoError(t, err)
			defer st.Close()
			for range 20 {
				rig.Exec(t, db, "SELECT 1")
				if _, err := st.Exec(); err != nil {
					t.Fatal(err)
				}
				tx, err := db.Begin()
				rig.NoError(t, err)
				rig.NoError(t, tx.Commit())
			}
			if s := db.Stats(); s.OpenConnections != 1 || s.Idle != 1 {
				t.Errorf("sql.DB has %d connections, %d of them idle; want the same one all the time", s.OpenConnections, s.Idle)
			}
			if n := rig.Value[int](t, db, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 1' AND prepare_time IS NOT NULL"); n < 1 {
				t.Error("its statement isn't there any more")
			}
			// A second one of sql.DB's gets the same physical connection.
			c, err := db.Conn(t.Context())
			rig.NoError(t, err)
			first := rig.Value[int](t, c, "SELECT pg_backend_pid()")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a second checkout of one connection: %v", err)
			}
			rig.NoError(t, c.Close())
			if second := rig.Value[int](t, db, "SELECT pg_backend_pid()"); second != first {
				t.Errorf("backend %d, then %d", first, second)
			}
		})
	}
}

// Whoever finds no connection is told why, once and after one pool_timeout, whatever they asked for, and whether sql.DB had kept a
// connection for them or not.
func TestPoolTimeoutOfKeptConnections(t *testing.T) {
	dsn := rig.WithKeys(pgtest.Database(t), "pool_size=1", "max_overflow=0", "pool_timeout=100ms")
	t.Run("SetMaxIdleConns", func(t *testing.T) { poolTimeoutOfKept(t, rig.Open(t, dsn)) })
	t.Run("SetMaxOpenConns", func(t *testing.T) {
		db := rig.Open(t, dsn)
		db.SetMaxOpenConns(5)
		poolTimeoutOfKept(t, db)
	})
}

func poolTimeoutOfKept(t *testing.T, db *sql.DB) {
	const timeout = 100 * time.Millisecond
	db.SetMaxIdleConns(4)
	pool := rig.PoolOf(t, db)
	st, err := db.Prepare("SELECT 1")
	rig.NoError(t, err)
	defer st.Close()

	for name, call := range map[string]func() error{
		"Exec":     func() error { _, err := db.Exec("SELECT $1::int", 1); return err },
		"Query":    func() error { _, err := db.Query("SELECT 1"); return err },
		"QueryRow": func() error { return db.QueryRow("SELECT 1").Scan(new(int)) },
		"Begin":    func() error { _, err := db.Begin(); return err },
		"Ping":     db.Ping,
		"Prepare":  func() error { _, err := db.Prepare("SELECT 2"); return err },
		"Stmt":     func() error { _, err := st.Exec(); return err },
		"Conn":     func() error { _, err := db.Conn(context.Background()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			keepEmpty(t, db, 3)
			held, err := db.Conn(t.Context())
			rig.NoError(t, err)
			defer held.Close()
			before, began := pool.Stats().CheckoutTimeouts, time.Now()
			err = call()
			if waited := time.Since(began); waited < timeout || !errors.Is(err, managedpg.ErrPoolTimeout) {
				t.Errorf("after %v: %v", waited, err)
			}
			if n := pool.Stats().CheckoutTimeouts - before; n != 1 {
				t.Errorf("%d waits have timed out, want 1", n)
			}
		})
	}
	rig.Exec(t, db, "SELECT 1")
}

// keepEmpty leaves n connections of a pool with one physical connection in sql.DB's free list.
func keepEmpty(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	rig.Eventually(t, "enough are kept", func() bool { // not those whose time runs out in the queue
		waitTogether(t, db, n, func() { _, _ = db.Exec("SELECT 1") })
		return db.Stats().Idle >= n
	})
}

// waitTogether has n callers wait for the connection of a pool that has one, so that each has a connection of database/sql's of its own.
func waitTogether(t *testing.T, db *sql.DB, n int, call func()) {
	t.Helper()
	held, err := db.Conn(t.Context())
	rig.NoError(t, err)
	defer held.Close()
	var calls sync.WaitGroup
	defer calls.Wait()
	began := rig.PoolOf(t, db).Stats().CheckoutTimeouts
	for range n {
		calls.Go(call)
	}
	rig.Eventually(t, "the calls wait", func() bool {
		s := rig.PoolOf(t, db).Stats()
		return s.Waiting+s.CheckoutTimeouts-began >= int64(n)
	})
	rig.NoError(t, held.Close())
}

// Who has the connection closes a statement that was prepared on one with which somebody waits for it, and doesn't wait in turn: database/sql
// holds that one's lock while it asks us for a connection.
func TestAStatementIsClosedWhileOthersWait(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=1", "max_overflow=0"))
	db.SetMaxIdleConns(4)
	pool := rig.PoolOf(t, db)
	for name, call := range map[string]func() error{
		"Exec":  func() error { _, err := db.Exec("SELECT 1"); return err },
		"Begin": func() error { tx, err := db.Begin(); return errors.Join(err, tx.Rollback()) },
		"Ping":  db.Ping,
		"Conn":  func() error { c, err := db.Conn(context.Background()); return errors.Join(err, c.Close()) },
	} {
		t.Run(name, func(t *testing.T) {
			st, err := db.Prepare("SELECT 1")
			rig.NoError(t, err)
			waitTogether(t, db, 3, func() { _, _ = st.Exec() })
			tx, err := db.Begin()
			rig.NoError(t, err)
			waited := make(chan error, 1)
			go func() { waited <- call() }()
			rig.Eventually(t, "it waits", func() bool { return pool.Stats().Waiting == 1 })
			closed := make(chan error, 1)
			go func() { closed <- st.Close() }()
			select {
			case err := <-closed:
				rig.NoError(t, err)
			case <-time.After(10 * time.Second):
				t.Error("closing the statement waits for the connection")
			}
			rig.NoError(t, tx.Rollback())
			rig.NoError(t, <-waited)
		})
	}
}

// What a program keeps of a checkout beyond its end can't be used while nobody has the connection.
func TestConnectionKeptBeyondItsCheckout(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=1"))
	c, err := db.Conn(t.Context())
	rig.NoError(t, err)
	var late driver.Conn
	var st driver.Stmt
	rig.NoError(t, c.Raw(func(dc any) (err error) {
		late = dc.(driver.Conn)
		st, err = late.Prepare("SELECT 1")
		return err
	}))
	rig.NoError(t, c.Close())
	if _, err := late.(driver.ExecerContext).ExecContext(t.Context(), "SELECT 1", nil); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("a call: %v", err)
	}
	if _, err := st.(driver.StmtExecContext).ExecContext(t.Context(), nil); !errors.Is(err, driver.ErrBadConn) {
		t.Errorf("its statement: %v", err)
	}
	if base := managedpg.Unwrap(late); base != driver.Conn(nil) && base != nil {
		t.Errorf("the base connection is %T", base)
	}
	rig.NoError(t, st.Close())
	if n := rig.PoolOf(t, db).Stats().CheckedOut; n != 0 {
		t.Errorf("%d checked out", n)
	}
}

// A sql.Stmt's Close leaves nothing on the server, on any connection that has executed it, as with the bare driver.
func TestStatementsAreFreed(t *testing.T) {
	databases(t, func(t *testing.T, db *sql.DB, _ string) {
		const left = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 42'"
		first, err := db.Prepare("SELECT 42")
		rig.NoError(t, err)
		second, err := db.Prepare("SELECT 42")
		rig.NoError(t, err)
		var both []*sql.Conn
		for range 2 { // on each connection
			c, err := db.Conn(t.Context())
			rig.NoError(t, err)
			both = append(both, c)
			tx, err := c.BeginTx(t.Context(), nil)
			rig.NoError(t, err)
			if _, err := tx.Stmt(first).Exec(); err != nil {
				t.Fatal(err)
			}
			rig.NoError(t, tx.Commit())
			if n := rig.Value[int](t, c, left); n < 1 {
				t.Errorf("%d are prepared while they are in use", n)
			}
		}
		for _, c := range both {
			rig.NoError(t, c.Close())
		}
		rig.NoError(t, first.Close())
		if _, err := second.Exec(); err != nil {
			t.Error(err)
		}
		rig.NoError(t, second.Close())
		for range 2 {
			c, err := db.Conn(t.Context())
			rig.NoError(t, err)
			defer c.Close()
			if n := rig.Value[int](t, c, left); n != 0 {
				t.Errorf("%d are left on a connection", n)
			}
		}
	})
}
