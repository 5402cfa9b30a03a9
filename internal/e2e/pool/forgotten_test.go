package pool_test

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Idle connections that a router between has forgotten answer nobody. To find that out costs one unanswered ping, and not one for each
// of them; with the bare driver each call on one of them hangs until its deadline.
func TestForgottenConnections(t *testing.T) {
	const idle, ping = 10, time.Second
	for _, base := range []struct{ name, bare string }{{"pgx", "pgx"}, {"pq", "postgres"}} {
		t.Run(base.name, func(t *testing.T) {
			t.Parallel()
			relay, err := pgtest.NewRelay(pgtest.Shared(t).Addr())
			rig.NoError(t, err)
			t.Cleanup(relay.Close)
			host, port, _ := net.SplitHostPort(relay.Addr())
			dsn := fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port)
			ours := rig.OpenQuietly(t, fmt.Sprintf("%s base_driver=%s pool_size=%d health_check_timeout=%v health_check=false", dsn, base.name, idle, ping))
			bare := rig.OpenWith(t, base.bare, dsn)
			bare.SetMaxIdleConns(idle)
			rig.Warm(t, ours, idle)
			rig.Warm(t, bare, idle)
			time.Sleep(ping + 100*time.Millisecond) // so long that a connection is asked before it is used again
			relay.Forget()

			call := func(db *sql.DB) (took time.Duration, err error) {
				ctx, cancel := context.WithTimeout(t.Context(), 4*ping)
				defer cancel()
				began := time.Now()
				_, err = db.ExecContext(ctx, "SELECT 1")
				return time.Since(began), err
			}
			answered := make(chan error, 1)
			go func() { // lib/pq waits on, whatever the deadline
				_, err := call(bare)
				answered <- err
			}()
			if took, err := call(ours); err != nil {
				t.Errorf("%v after %v", err, took)
			}
			select {
			case err := <-answered:
				if err == nil {
					t.Error("the bare driver's connection isn't forgotten")
				}
			case <-time.After(5 * ping):
			}
			for range idle { // and nobody after it meets another one
				if _, err := call(ours); err != nil {
					t.Error(err)
				}
			}
			rig.Eventually(t, "the forgotten ones are gone", func() bool { return rig.PoolOf(t, ours).Stats().Open <= 2 })
		})
	}
}
