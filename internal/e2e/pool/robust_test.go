package pool_test

import (
	"context"
	"database/sql/driver"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A panic of OnConnect's at a reset goes on, and leaves the pool whole.
func TestPanicAtReset(t *testing.T) {
	calls := 0
	db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
		c.PoolSize, c.MaxOverflow, c.PoolTimeout, c.PoolReset = 1, 0, time.Second, "discard_all"
		c.OnConnect = func(context.Context, driver.Conn) error {
			if calls++; calls == 2 {
				panic("no")
			}
			return nil
		}
	})
	rig.Exec(t, db, "SELECT 1")
	func() {
		defer func() {
			if recover() != "no" {
				t.Error("the panic didn't go on")
			}
		}()
		_ = db.Ping()
	}()
	rig.Exec(t, db, "SELECT 1")
}

// OnConnect has its caller's time: on a server that hangs it ends with the call.
func TestOnConnectOnAHungServer(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			dsn := pgtest.Database(t)
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
			db := rig.OpenConfig(t, proxy.DSN(dsn), func(c *managedpg.Config) {
				c.BaseDriver, c.HealthCheck = base, false
				c.OnConnect = func(ctx context.Context, c driver.Conn) error {
					_, err := c.(driver.ExecerContext).ExecContext(ctx, "SELECT 'hang'", nil)
					return err
				}
			})
			proxy.Arm(pgtest.Fault{On: pgtest.OnQuery("SELECT 'hang'"), Do: pgtest.Hang})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- db.PingContext(ctx) }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("connected")
				}
			case <-time.After(20 * time.Second):
				proxy.Release()
				t.Errorf("goes on until the server answers: %v", <-ended)
			}
		})
	}
}

// One address of a host that swallows everything leaves time for the next.
func TestAddressThatSwallowsEverything(t *testing.T) {
	db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
		c.ConnectTimeout = 2 * time.Second
		c.PgxConfig = func(c *pgx.ConnConfig) error {
			there, dialer := c.Host, &net.Dialer{}
			c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"192.0.2.1", there}, nil }
			c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if strings.HasPrefix(addr, "192.0.2.1:") {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return dialer.DialContext(ctx, network, addr)
			}
			return nil
		}
	})
	rig.Exec(t, db, "SELECT 1")
}
