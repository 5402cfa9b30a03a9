package clients

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/leak"
)

// withPgx lends pgx's own connection.
func withPgx(ctx context.Context, db *sql.DB, f func(*pgx.Conn) error) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Raw(func(driverConn any) error { return f(managedpg.Unwrap(driverConn).(*stdlib.Conn).Conn()) })
}

// What only pgx has: CopyFrom and Batch.
func TestPgxCopyAndBatch(t *testing.T) {
	for _, keys := range []string{"pool_size=4", "pool_size=none"} {
		t.Run(keys, func(t *testing.T) {
			s := start(t, keys)
			ctx := context.Background()
			db, err := sql.Open("managedpg", s.dsn)
			s.must(err)
			defer db.Close()
			_, err = db.ExecContext(ctx, "CREATE TABLE fruit (name text PRIMARY KEY, n int)")
			s.must(err)

			load := func(names ...string) error {
				return withPgx(ctx, db, func(c *pgx.Conn) error {
					_, err := c.CopyFrom(ctx, pgx.Identifier{"fruit"}, []string{"name", "n"},
						pgx.CopyFromSlice(len(names), func(i int) ([]any, error) { return []any{names[i], i}, nil }))
					return err
				})
			}
			s.must(load("apple", "pear", "fig"))
			if err := load("kiwi", "apple"); err == nil || !strings.Contains(err.Error(), "23505") {
				t.Errorf("a second apple: %v", err)
			}

			s.failOver()

			s.must(load("plum"))
			var names []string
			s.must(withPgx(ctx, db, func(c *pgx.Conn) error {
				var batch pgx.Batch
				batch.Queue("UPDATE fruit SET n = n + $1", 10).Exec(func(ct pgconn.CommandTag) error {
					if ct.RowsAffected() != 4 {
						t.Errorf("%d rows updated", ct.RowsAffected())
					}
					return nil
				})
				batch.Queue("SELECT name FROM fruit WHERE n > $1 ORDER BY name", 10).Query(func(rows pgx.Rows) (err error) {
					names, err = pgx.CollectRows(rows, pgx.RowTo[string])
					return err
				})
				return c.SendBatch(ctx, &batch).Close()
			}))
			if !slices.Equal(names, []string{"fig", "pear"}) {
				t.Errorf("found %v", names)
			}
			s.check()
		})
	}
}

// A listener holds its connection for days and is not taken for a leak. It hears of its server's death, and listens again.
func TestPgxListen(t *testing.T) {
	for _, keys := range []string{"pool_size=4", "pool_size=none"} {
		t.Run(keys, func(t *testing.T) {
			s := start(t, keys+"&leak_threshold=100ms")
			ctx, cancel := context.WithCancel(context.Background())
			cfg, err := managedpg.ParseDSN(s.dsn)
			s.must(err)
			var mu sync.Mutex
			var leaks []string
			cfg.OnLeak = func(r leak.Report) {
				mu.Lock()
				defer mu.Unlock()
				leaks = append(leaks, r.Caller)
			}
			db, err := managedpg.OpenDB(cfg)
			s.must(err)
			defer db.Close()

			listening, heard := make(chan error), make(chan string)
			var listener sync.WaitGroup
			listener.Go(func() {
				for ctx.Err() == nil {
					err := withPgx(managedpg.LongCheckout(ctx), db, func(c *pgx.Conn) error {
						_, err := c.Exec(ctx, "LISTEN fruit")
						listening <- err
						for err == nil {
							var n *pgconn.Notification
							if n, err = c.WaitForNotification(ctx); err == nil {
								heard <- n.Payload
							}
						}
						return err
					})
					if err == nil {
						t.Error("listening ended without an error")
					}
				}
			})
			defer func() { cancel(); listener.Wait() }()
			say := func(text string) { // to who begins to listen now; who is lost meanwhile begins again
				for {
					select {
					case err := <-listening:
						if err == nil {
							_, err := db.ExecContext(ctx, "SELECT pg_notify('fruit', $1)", text)
							s.must(err)
						}
					case got := <-heard:
						if got != text {
							t.Errorf("heard %q, want %q", got, text)
						}
						return
					}
				}
			}
			say("apple")

			// Another who holds a connection for as long is reported.
			at := nextLine()
			c, err := db.Conn(ctx)
			s.must(err)
			eventually(t, "a leak reported", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(leaks) > 0
			})
			s.must(c.Close())

			s.failOver()

			say("pear")
			mu.Lock()
			if len(leaks) != 1 || !strings.HasPrefix(leaks[0], at) {
				t.Errorf("reported as leaks: %v", leaks)
			}
			mu.Unlock()
			cancel()
			listener.Wait()
			if f := s.pool().Failover(); f.FailoverCount != 1 {
				t.Errorf("failed over %d times", f.FailoverCount)
			}
			eventually(t, "all connections given back", func() bool { return s.pool().Stats().CheckedOut == 0 })
		})
	}
}
