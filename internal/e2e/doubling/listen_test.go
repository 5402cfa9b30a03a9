package doubling_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// What a program does with pgx's own connection ends with its context as under bare pgx: a wait for notifications leaves the
// connection whole, a statement's error is the context's; and what is known of cancel requests is left alone.
func TestCallsOnPgxsConnectionEnd(t *testing.T) {
	for name, dsn := range map[string]string{"bare": "", "managedpg": "cancel_timeout=5s", "managedpg by the driver": "cancel_timeout=5s&pool_size=2"} {
		for _, tls := range []bool{false, true} {
			var opts []pgtest.ProxyOption
			mode := "sslmode=disable"
			if tls {
				opts, mode = append(opts, pgtest.WithTLS()), "sslmode=require"
				name += ", TLS"
			}
			t.Run(name, func(t *testing.T) {
				c := pgtest.Shared(t)
				proxy := pgtest.NewProxy(t, c.Addr(), opts...)
				driver, url := "pgx", "postgres://postgres@"+proxy.Addr()+"/postgres?"+mode
				if dsn != "" {
					driver, url = "managedpg", url+"&"+dsn
				}
				db, err := sql.Open(driver, url)
				rig.NoError(t, err)
				defer db.Close()
				conn, err := db.Conn(t.Context())
				rig.NoError(t, err)
				defer conn.Close()
				rig.Exec(t, conn, "LISTEN word")
				wait := func(limit time.Duration) (err error) {
					return conn.Raw(func(c any) error {
						ctx, cancel := context.WithTimeout(t.Context(), limit)
						defer cancel()
						_, err := managedpg.Unwrap(c).(*stdlib.Conn).Conn().WaitForNotification(ctx)
						return err
					})
				}
				for range 2 {
					for range 4 {
						if err := wait(20 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("waited for nothing: %v", err)
						}
					}
					rig.NoError(t, c.Exec("NOTIFY word"))
					rig.NoError(t, wait(15*time.Second))
				}
				rig.Exec(t, conn, "SELECT 1")
				if n := proxy.Cancels(); n > 0 {
					t.Errorf("%d cancel requests", n)
				}
				defer conn.Raw(func(c any) error {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					defer cancel()
					_, err := managedpg.Unwrap(c).(*stdlib.Conn).Conn().Exec(ctx, "SELECT pg_sleep(30)")
					if !errors.Is(err, context.DeadlineExceeded) || !pgconn.Timeout(err) {
						t.Errorf("a statement on pgx's connection: %v", err)
					}
					return nil
				})
				if dsn == "" {
					return
				}
				pool := rig.PoolOf(t, db)
				if s := pool.Stats(); s.CancelsSent != 0 {
					t.Errorf("%d cancels", s.CancelsSent)
				}
				if note := pool.Health().Endpoints[0].Note; note != "" {
					t.Errorf("Health says: %s", note)
				}

				// A statement of the sql.Conn is cancelled as ever.
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				if _, err := conn.ExecContext(ctx, "SELECT pg_sleep(30)"); rig.SQLState(err) != "57014" || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a statement whose context ended: %v", err)
				}
			})
		}
	}
}
