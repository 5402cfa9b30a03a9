package doubling_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Whatever the server is at when a context ends, the session goes on: in rows, in a transaction, between its statements.
func TestTheSessionOutlivesACancelledCall(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, _ *sql.DB) {
		keys := []string{"base_driver=" + c.Base, "cancel_timeout=5s"}
		if c.Governed {
			keys = append(keys, "pool_size=1", "max_overflow=0")
		}
		db := rig.Open(t, rig.WithKeys(pgtest.Database(t), keys...))
		if !c.Governed {
			db.SetMaxOpenConns(1)
		}
		backend := func() int { return rig.Value[int](t, db, "SELECT pg_backend_pid()") }
		first := backend()
		for name, call := range map[string]func(ctx context.Context, end func()){
			"rows": func(ctx context.Context, end func()) {
				rows, err := db.QueryContext(ctx, "SELECT n, repeat('x', 1000) FROM generate_series(1, 1000000) n")
				if err != nil {
					t.Fatal(err)
				}
				rows.Next()
				end()
				for rows.Next() {
				}
				if err := rows.Err(); !errors.Is(err, context.Canceled) && rig.SQLState(err) != "57014" {
					t.Errorf("the reader was told %v", err)
				}
			},
			"between a transaction's statements": func(ctx context.Context, end func()) {
				tx, err := db.BeginTx(ctx, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec("SELECT 1"); err != nil {
					t.Fatal(err)
				}
				end()
				if err := tx.Commit(); !errors.Is(err, context.Canceled) && !errors.Is(err, sql.ErrTxDone) {
					t.Errorf("COMMIT was told %v", err)
				}
			},
			"a statement's own in a transaction": func(ctx context.Context, end func()) {
				tx, err := db.Begin()
				if err != nil {
					t.Fatal(err)
				}
				defer tx.Rollback()
				time.AfterFunc(20*time.Millisecond, end)
				if _, err := tx.ExecContext(ctx, "SELECT pg_sleep(5)"); !errors.Is(err, context.Canceled) || errors.Is(err, managedpg.ErrTxLost) {
					t.Errorf("it was told %v", err)
				}
				if _, err := tx.Exec("SELECT 1"); rig.SQLState(err) != "25P02" {
					t.Errorf("the next statement was told %v, want that the transaction is aborted", err)
				}
			},
		} {
			ctx, end := context.WithCancel(t.Context())
			call(ctx, end)
			end()
			if now := backend(); now != first {
				t.Errorf("%s: the session has changed", name)
			}
		}
	})
}

// Nor does it cost the session that the next caller's context ends while a cancel request is still on its way.
func TestTheSessionOutlivesWhoWaitsForACancelRequest(t *testing.T) {
	for _, keys := range []string{"", "pool_size=1&max_overflow=0", "pool_reset=discard_all"} {
		t.Run(keys, func(t *testing.T) {
			cfg, err := managedpg.ParseDSN(pgtest.Database(t) + "&cancel_timeout=5s&health_check=false&" + keys)
			rig.NoError(t, err)
			var dials atomic.Int32
			last := make(chan struct{}) // the request's end is seen then
			cfg.PgxConfig = func(c *pgx.ConnConfig) error {
				dial := c.DialFunc
				c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					nc, err := dial(ctx, network, addr)
					if err == nil && dials.Add(1) > 1 {
						nc = lateEnd{nc, last}
					}
					return nc, err
				}
				return nil
			}
			db, err := managedpg.OpenDB(cfg)
			rig.NoError(t, err)
			defer db.Close()
			db.SetMaxOpenConns(1)
			first := rig.Value[int](t, db, "SELECT pg_backend_pid()")
			short := func(db interface {
				ExecContext(context.Context, string, ...any) (sql.Result, error)
			}, text string) error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				_, err := db.ExecContext(ctx, text)
				return err
			}
			c, err := db.Conn(t.Context())
			rig.NoError(t, err)
			rig.Exec(t, c, "SET application_name = 'mine'")
			if err := short(c, "SELECT pg_sleep(30)"); rig.SQLState(err) != "57014" {
				t.Errorf("the cancelled call was told %v", err)
			}
			rig.NoError(t, c.Close())
			if keys == "pool_reset=discard_all" { // nor is a session lent that wasn't reset
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				c, err := db.Conn(ctx)
				close(last)
				if err == nil {
					defer c.Close()
					if name := rig.Value[string](t, c, "SHOW application_name"); name == "mine" {
						t.Error("the session is the one before's")
					}
				}
				return
			}
			if err := short(db, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who waits for the request was told %v", err)
			}
			close(last)
			if now := rig.Value[int](t, db, "SELECT pg_backend_pid()"); now != first {
				t.Error("the session has changed")
			}
		})
	}
}

// lateEnd is a connection whose end is read only once the channel is closed.
type lateEnd struct {
	net.Conn
	last chan struct{}
}

func (c lateEnd) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		<-c.last
	}
	return n, err
}
