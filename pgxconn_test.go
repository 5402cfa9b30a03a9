package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"strings"
	"testing"

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
	t.Run("a db of pgx's own", func(t *testing.T) {
		db := rig.OpenWith(t, "pgx", pgtest.Database(t))
		if err := managedpg.PgxConn(t.Context(), db, func(c *pgx.Conn) error { return c.Ping(t.Context()) }); err != nil {
			t.Error(err)
		}
	})
}
