package pool_test

import (
	"context"
	"database/sql"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// TestOperatorsAtAnyMoment calls all that a pool can be asked and told while pools are made, work and are closed.
func TestOperatorsAtAnyMoment(t *testing.T) {
	t.Parallel()
	server := pgtest.Database(t)
	var users, operators sync.WaitGroup
	over := make(chan struct{})
	work := func(db *sql.DB) {
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				for range 10 {
					err := managedpg.InTx(t.Context(), db, nil, func(ctx context.Context, tx *sql.Tx) error {
						_, err := tx.ExecContext(ctx, "SELECT 1")
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		calls.Wait()
	}
	for _, c := range rig.Combinations {
		users.Go(func() {
			for range 6 {
				db, err := sql.Open("managedpg", c.DSN(server, "pool_name=at-once", "leak_detection=true",
					"connect_timeout=30s", "health_check_timeout=30s", // all this takes its time on a busy machine
					"target_session_attrs=read-write", "failover_urls="+url.QueryEscape(server)))
				if err != nil {
					t.Error(err)
					return
				}
				work(db)
				pool, _ := managedpg.PoolOf(db)
				if err := db.Close(); err != nil {
					t.Error(err)
				}
				rig.Eventually(t, "all is given back and closed", func() bool {
					s, _ := pool.Totals()
					return s.CheckedOut == 0 && s.TotalCheckouts == s.TotalCheckins && s.Open == 0
				})
			}
		})
	}
	for range 2 {
		operators.Go(func() {
			for {
				for _, p := range managedpg.Pools() {
					if !strings.HasPrefix(p.Name(), "at-once") {
						continue // another test's
					}
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					s := p.Stats()
					_, _ = io.WriteString(io.Discard, s.String())
					p.Totals()
					p.Health()
					p.Failover()
					p.Leaks()
					p.Holders(3)
					p.CheckNow(ctx)
					_ = p.Failback(ctx) // there may be nothing better, or it is closed
					p.Drain()
					p.ResetStats()
					cancel()
				}
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	users.Wait()
	close(over)
	operators.Wait()
}
