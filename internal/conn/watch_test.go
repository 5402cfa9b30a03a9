package conn_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	_ "github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// lib/pq reads on when a call's context has ended and the server is silent. With us the call comes back.

const (
	deadline = 100 * time.Millisecond
	grace    = time.Second // wire.CloseLimit
	slack    = 2 * time.Second
)

func TestCallOnAHungServerComesBack(t *testing.T) {
	open := func(tx *sql.Tx, err error) *sql.Tx {
		if err != nil {
			t.Error(err)
		}
		return tx
	}
	calls := []struct {
		name string
		on   func(pgtest.Message) bool
		run  func(context.Context, *sql.Conn) error
	}{
		{"exec", pgtest.OnText("42"), func(ctx context.Context, c *sql.Conn) error {
			_, err := c.ExecContext(ctx, "SELECT 42")
			return err
		}},
		{"exec with argument", pgtest.OnText("42"), func(ctx context.Context, c *sql.Conn) error {
			_, err := c.ExecContext(ctx, "SELECT 42 + $1::int", 1)
			return err
		}},
		{"query", pgtest.OnText("42"), func(ctx context.Context, c *sql.Conn) error {
			return c.QueryRowContext(ctx, "SELECT 42").Scan(new(int))
		}},
		{"prepare", pgtest.OnParse("42"), func(ctx context.Context, c *sql.Conn) error {
			_, err := c.PrepareContext(ctx, "SELECT 42")
			return err
		}},
		{"prepared exec", pgtest.OnText("42"), func(ctx context.Context, c *sql.Conn) error {
			st, err := c.PrepareContext(context.Background(), "SELECT 42")
			if err != nil {
				return err
			}
			defer st.Close()
			_, err = st.ExecContext(ctx)
			return err
		}},
		{"prepared query", pgtest.OnText("42"), func(ctx context.Context, c *sql.Conn) error {
			st, err := c.PrepareContext(context.Background(), "SELECT 42")
			if err != nil {
				return err
			}
			defer st.Close()
			return st.QueryRowContext(ctx).Scan(new(int))
		}},
		{"ping", pgtest.OnQuery(";"), func(ctx context.Context, c *sql.Conn) error { return c.PingContext(ctx) }},
		{"begin", pgtest.OnQuery("BEGIN"), func(ctx context.Context, c *sql.Conn) error {
			_, err := c.BeginTx(ctx, nil)
			return err
		}},
		{"commit", pgtest.OnQuery("COMMIT"), func(ctx context.Context, c *sql.Conn) error {
			err := open(c.BeginTx(ctx, nil)).Commit()
			return errors.Join(err, ctx.Err()) // sql.ErrTxDone when database/sql has noticed first
		}},
		{"rollback", pgtest.OnQuery("ROLLBACK"), func(ctx context.Context, c *sql.Conn) error {
			err := open(c.BeginTx(ctx, nil)).Rollback()
			return errors.Join(err, ctx.Err())
		}},
	}
	for i, c := range calls {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			params := "&health_check=false&base_driver=pq"
			if i%2 == 1 {
				params += "&pool_size=2"
			}
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
			conn := connTo(t, proxy.DSN(pgtest.Database(t))+params)
			proxy.Arm(pgtest.Fault{On: c.on, Do: pgtest.Hang})
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			start := time.Now()
			err := c.run(ctx, conn)
			took := time.Since(start)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the context's error in it", err)
			}
			if took < deadline || took > deadline+grace+slack {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestRowsOnAHungServerComeBack(t *testing.T) {
	// The proxy loses whole answers only, so it is the server that stops between two rows.
	c := pgtest.Start(t)
	conn := connTo(t, c.DSNFor("postgres", "health_check=false", "base_driver=pq"))
	const limit = 2 * time.Second // for the call to return and the server to stop, too, which may take a while
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	rows, err := conn.QueryContext(ctx, "SELECT repeat('x', 10000) FROM generate_series(1, 100000)")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer c.Thaw()
	start := time.Now()
	for rows.Next() {
	}
	if err := rows.Err(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
	rows.Close()
	if took := time.Since(start); took > limit+grace+slack {
		t.Errorf("it took %v", took)
	}
}

func TestPingBeforeReuseOfAHungConnectionGivesUp(t *testing.T) {
	t.Parallel()
	proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
	db, err := sql.Open("managedpg", proxy.DSN(pgtest.Database(t))+"&health_check=false&health_check_timeout=200ms&base_driver=pq&pool_size=2")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("SELECT 1"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // free for long enough that it is pinged
	proxy.Arm(pgtest.Fault{On: pgtest.OnQuery(";"), Do: pgtest.Hang})
	start := time.Now()
	if _, err := db.Exec("SELECT 2"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 200*time.Millisecond+slack {
		t.Errorf("it took %v", took)
	}
}

func TestContextThatEndsAfterwardsHarmsNoLaterCall(t *testing.T) {
	later := map[string]func(*testing.T, *sql.Conn){
		"in a long call": func(t *testing.T, c *sql.Conn) {
			if _, err := c.ExecContext(context.Background(), "SELECT pg_sleep(1.4)"); err != nil {
				t.Error(err)
			}
		},
		"idle": func(t *testing.T, c *sql.Conn) {
			time.Sleep(1400 * time.Millisecond)
			if _, err := c.ExecContext(context.Background(), "SELECT 1"); err != nil {
				t.Error(err)
			}
		},
	}
	first := map[string]func(context.Context, *testing.T, *sql.Conn){
		"exec": func(ctx context.Context, t *testing.T, c *sql.Conn) {
			if _, err := c.ExecContext(ctx, "SELECT 1"); err != nil {
				t.Error(err)
			}
		},
		"query": func(ctx context.Context, t *testing.T, c *sql.Conn) {
			if err := c.QueryRowContext(ctx, "SELECT 1").Scan(new(int)); err != nil {
				t.Error(err)
			}
		},
		"cancelled": func(ctx context.Context, t *testing.T, c *sql.Conn) {
			// Of a prepared statement that was cancelled lib/pq keeps the connection.
			st, err := c.PrepareContext(context.Background(), "SELECT pg_sleep(10)")
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			if _, err := st.ExecContext(short); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		},
	}
	for what, run := range first {
		for when, goOn := range later {
			t.Run(what+", then "+when, func(t *testing.T) {
				t.Parallel()
				conn := connTo(t, pgtest.Database(t)+"&base_driver=pq&health_check=false&cancel_timeout=20s") // a busy machine may take long
				pid := backend(t, conn)
				ctx, cancel := context.WithCancel(context.Background())
				run(ctx, t, conn)
				cancel()
				goOn(t, conn)
				if now := backend(t, conn); now != pid {
					t.Errorf("the connection is another one: backend %d, was %d", now, pid)
				}
			})
		}
	}
}

func connTo(t *testing.T, dsn string) *sql.Conn {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func backend(t *testing.T, c *sql.Conn) (pid int) {
	t.Helper()
	if err := c.QueryRowContext(context.Background(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	return pid
}
