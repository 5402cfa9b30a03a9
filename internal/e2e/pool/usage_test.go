package pool_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// sites are lines of code that use a pool.
var sites = []func(context.Context, *sql.DB) error{
	useFor1, useFor2, useFor3, useFor4, useFor5, useFor6, useFor7, useFor8, useFor9, greedy,
}

const brief = "SELECT pg_sleep(0.002)"

func useFor1(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor2(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor3(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor4(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor5(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor6(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor7(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor8(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func useFor9(ctx context.Context, db *sql.DB) error { _, err := db.ExecContext(ctx, brief); return err }
func greedy(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "SELECT pg_sleep(0.03)")
	return err
}

// The line that holds connections for ten times longer than its share is named first: by Usage, and by the error of who finds none.
func TestUsageNamesTheLineThatNeedsThePool(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			db := rig.Open(t, rig.Combination{Base: base}.DSN(pgtest.Database(t), "pool_size=2", "max_overflow=0", "pool_timeout=50ms"))
			pool, _ := managedpg.PoolOf(db)
			var mu sync.Mutex
			var exhausted *conn.PoolTimeoutError
			round := func() {
				var load sync.WaitGroup
				for range 4 {
					for _, site := range sites {
						load.Go(func() {
							for range 20 {
								err := site(t.Context(), db)
								mu.Lock()
								if err != nil && !errors.As(err, &exhausted) {
									t.Error(err)
								}
								mu.Unlock()
							}
						})
					}
				}
				load.Wait()
			}
			// What the errors say is up to a second old, and at first there is little to tell.
			rig.Eventually(t, "the error of who finds none names it", func() bool {
				round()
				return exhausted != nil && len(exhausted.Usage) > 0 && strings.HasSuffix(exhausted.Usage[0].Caller, ".greedy") &&
					strings.Contains(exhausted.Error(), "% by "+exhausted.Usage[0].Caller+" of the time used lately")
			})
			usage := pool.Usage()
			if len(usage) != len(sites) {
				t.Errorf("%d lines, want %d", len(usage), len(sites))
			}
			for i, u := range usage {
				if first := strings.HasSuffix(u.Caller, ".greedy"); first != (i == 0) {
					t.Errorf("place %d: %v", i, u)
				}
				if u.Held <= 0 || u.Checkouts <= 0 || i == 0 && u.Share < 0.3 {
					t.Errorf("%s: %d checkouts, held %v (%.2f), waited %v", u.Caller, u.Checkouts, u.Held, u.Share, u.Waited)
				}
			}
		})
	}
}
