package managedpg_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// What only pgx has, COPY for one.
func ExamplePgxConn() {
	db, err := sql.Open("managedpg", server()+"&pool_size=2")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()

	err = managedpg.PgxConn(ctx, db, func(c *pgx.Conn) error {
		if _, err := c.Exec(ctx, "CREATE TEMPORARY TABLE orders (id int)"); err != nil {
			return err
		}
		n, err := c.CopyFrom(ctx, pgx.Identifier{"orders"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}, {2}, {3}}))
		fmt.Println(n, "rows")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 3 rows
}

func TestPgxConn(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		rig.Exec(t, db, "CREATE TABLE copied (i int)")
		run := func(ctx context.Context, more func() error) error {
			return managedpg.PgxConn(ctx, db, func(c *pgx.Conn) error {
				if _, err := c.CopyFrom(t.Context(), pgx.Identifier{"copied"}, []string{"i"}, pgx.CopyFromRows([][]any{{1}, {2}})); err != nil {
					return err
				}
				return more()
			})
		}
		if c.Base == "pq" {
			err := run(t.Context(), func() error { return nil })
			if err == nil || !strings.Contains(err.Error(), "*pq.conn") {
				t.Errorf("got %v", err)
			}
		} else {
			mine := errors.New("mine")
			for _, returned := range []error{nil, mine} {
				if err := run(t.Context(), func() error { return returned }); err != returned {
					t.Errorf("got %v, want %v", err, returned)
				}
			}
			func() {
				defer func() {
					if v := recover(); v != "boom" {
						t.Errorf("recovered %v", v)
					}
				}()
				_ = run(t.Context(), func() error { panic("boom") })
			}()
			if n := rig.Value[int](t, db, "SELECT count(*) FROM copied"); n != 6 {
				t.Errorf("%d rows were copied", n)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := run(ctx, func() error { return nil }); err != context.Canceled {
				t.Errorf("without a connection: %v", err)
			}
		}
		rig.Eventually(t, "nothing is checked out", func() bool { return rig.PoolOf(t, db).Stats().CheckedOut == 0 })
	})
	t.Run("a handle that database/sql's opener made", func(t *testing.T) {
		db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=1", "max_overflow=0", "pool_timeout=1m"))
		db.SetMaxOpenConns(1)
		pool := rig.PoolOf(t, db)
		c, err := db.Conn(t.Context())
		rig.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		told := make(chan error, 1)
		go func() { told <- managedpg.PgxConn(ctx, db, func(*pgx.Conn) error { return nil }) }()
		rig.Eventually(t, "it waits for a handle", func() bool { return db.Stats().WaitCount == 1 })
		paused := make(chan error, 1)
		go func() { paused <- pool.Pause(t.Context()) }()
		rig.Eventually(t, "nothing is lent any more", func() bool { return pool.Stats().Paused > 0 })
		_ = c.Raw(func(any) error { return driver.ErrBadConn }) // database/sql closes it, and makes another one for whoever waits
		if err := <-told; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		rig.NoError(t, <-paused)
		pool.Resume()
	})
	t.Run("a db of pgx's own", func(t *testing.T) {
		db := rig.OpenWith(t, "pgx", pgtest.Database(t))
		if err := managedpg.PgxConn(t.Context(), db, func(c *pgx.Conn) error { return c.Ping(t.Context()) }); err != nil {
			t.Error(err)
		}
	})
}
