package pool_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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
				if u.Held <= 0 || u.Checkouts <= 0 || i == 0 && u.Share <= 1/float64(len(sites)) {
					t.Errorf("%s: %d checkouts, held %v (%.2f), waited %v", u.Caller, u.Checkouts, u.Held, u.Share, u.Waited)
				}
			}
		})
	}
}

// The log says who uses an exhausted pool, once for many who wait in vain; and nothing of that while somebody has paused the pool.
func TestExhaustedPoolIsLogged(t *testing.T) {
	var log records
	db := rig.OpenConfig(t, pgtest.Database(t)+"&pool_size=2&max_overflow=0&pool_timeout=50ms", func(c *managedpg.Config) {
		c.Logger = slog.New(&log)
	})
	var held []*sql.Conn
	for range 2 {
		held = append(held, hoard(t, db))
	}
	for range 3 {
		if err := db.Ping(); !errors.Is(err, managedpg.ErrPoolTimeout) {
			t.Fatal(err)
		}
	}
	told := log.named("managedpg: pool is exhausted")
	if len(told) != 1 {
		t.Fatalf("logged %d times: %v", len(told), told)
	}
	if a := told[0]; a["failed"].Int64() != 1 || a["in_use"].Int64() != 2 || !strings.HasPrefix(a["used_by"].String(), "100 % by ") ||
		!strings.HasSuffix(a["used_by"].String(), "pool_test.hoard") || !strings.HasSuffix(a["longest_held_by"].String(), "pool_test.hoard") ||
		a["longest_held"].Duration() < 50*time.Millisecond {
		t.Errorf("%v", a)
	}
	for _, c := range held {
		c.Close()
	}

	db = rig.OpenConfig(t, pgtest.Database(t)+"&pool_size=1&max_overflow=0&pool_timeout=50ms", func(c *managedpg.Config) {
		c.Logger = slog.New(&log)
	})
	if err := rig.PoolOf(t, db).Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Ping(); !errors.Is(err, managedpg.ErrPoolTimeout) {
		t.Fatal(err)
	}
	if told := log.named("managedpg: pool is exhausted"); len(told) != 1 {
		t.Errorf("of a paused pool it is said that it is exhausted: %v", told)
	}
}

func hoard(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// records is a slog.Handler that keeps what is logged.
type records struct {
	mu  sync.Mutex
	all []slog.Record
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }

func (r *records) Handle(_ context.Context, one slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, one)
	return nil
}

// named are the attributes of the records with this message.
func (r *records) named(message string) (all []map[string]slog.Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.all {
		if one.Message == message {
			attrs := make(map[string]slog.Value)
			one.Attrs(func(a slog.Attr) bool {
				attrs[a.Key] = a.Value
				return true
			})
			all = append(all, attrs)
		}
	}
	return all
}
