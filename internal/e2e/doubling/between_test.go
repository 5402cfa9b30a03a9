package doubling_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// What a hook of the user's in ResetSession has lost isn't lent, whatever the hook says: only ErrBadConn is heeded of that.
func TestAResetThatLosesTheSession(t *testing.T) {
	for name, lose := range map[string]func(context.Context, *pgx.Conn) error{
		"the server ends it": func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
			return err
		},
		"its socket is closed": func(_ context.Context, c *pgx.Conn) error { return c.PgConn().Conn().Close() },
	} {
		for _, governed := range []string{"pool_size=2", "connect_timeout=10s"} {
			t.Run(name+", "+governed, func(t *testing.T) {
				keys := []string{"base_driver=pgx", "pool_pre_ping=false", governed}
				db := rig.OpenConfig(t, rig.WithKeys(pgtest.Database(t), keys...), func(c *managedpg.Config) {
					c.PgxOptions = []stdlib.OptionOpenDB{stdlib.OptionResetSession(lose)}
				})
				rig.NoError(t, db.Ping())
				c, err := db.Conn(t.Context())
				rig.NoError(t, err)
				defer c.Close()
				_, err = c.ExecContext(t.Context(), "SELECT 1")
				rig.NoError(t, err)
			})
		}
	}
}

// What became of a cancel request is counted, whatever the connection was used for before: it came too late where the DO raised its own error, and
// is confirmed where a second one came while it did.
func TestCancelsAfterRowsAreCounted(t *testing.T) {
	for _, governed := range []string{"pool_size=1", "connect_timeout=10s"} {
		t.Run(governed, func(t *testing.T) {
			dsn := pgtest.Database(t)
			db, bare := rig.Open(t, rig.WithKeys(dsn, "base_driver=pgx", "cancel_timeout=5s", governed)), rig.OpenWith(t, "pgx", dsn)
			db.SetMaxOpenConns(1)
			for range 3 {
				rig.Value[int](t, db, "SELECT 1")
				ctx, cancel := context.WithCancel(t.Context())
				answer := make(chan error, 1)
				go func() {
					_, err := db.QueryContext(ctx, "DO $$ BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN RAISE division_by_zero; END $$")
					answer <- err
				}()
				rig.Eventually(t, "the DO is at work", func() bool {
					return rig.Value[bool](t, bare, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'DO %' AND wait_event = 'PgSleep')")
				})
				cancel()
				if err := <-answer; err == nil {
					t.Error("a DO that raises an error raised none")
				}
			}
			rig.Exec(t, db, "SELECT 1") // makes the connection fit, unless it is made so in the background
			pool := rig.PoolOf(t, db)
			rig.Eventually(t, "what became of three requests", func() bool {
				s := pool.Stats()
				return s.CancelsTooLate+s.CancelsConfirmed == 3
			})
		})
	}
}

// foreignContext is no context of the standard library's, so that each [context.AfterFunc] of it takes a goroutine.
type foreignContext struct {
	context.Context
	done chan struct{}
}

func (c foreignContext) Done() <-chan struct{} { return c.done }
func (foreignContext) Value(any) any           { return nil }

func (c foreignContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// A transaction may have a context of any kind, which may end at any moment, as when the answer to COMMIT comes: nobody reads it when there is
// another one in its place.
func TestTransactionsOfAForeignContext(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		for range 1000 {
			ctx := foreignContext{t.Context(), make(chan struct{})}
			tx, err := db.BeginTx(ctx, nil)
			rig.NoError(t, err)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				time.Sleep(rand.N(200 * time.Microsecond))
				close(ctx.done)
			}()
			_ = tx.Commit() // or is told that the context has ended
			<-ended
		}
	})
}
