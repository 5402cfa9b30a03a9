package pool_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// docs/enhanced-connection-manager.md says of each method, option and variable of the Enhanced Connection Manager what does
// it here. Each line has a test that does it.
func TestEnhancedConnectionManager(t *testing.T) {
	text, err := os.ReadFile("../../../docs/enhanced-connection-manager.md")
	rig.NoError(t, err)
	var lines []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(string(text), -1) {
		lines = append(lines, m[1])
	}
	for name := range seed {
		if !slices.Contains(lines, name) {
			t.Errorf("the table lacks %s", name)
		}
	}
	for _, name := range lines {
		does := seed[name]
		if does == nil {
			t.Errorf("%s is in the table, and nothing does it here", name)
			continue
		}
		t.Run(name, does)
	}
}

var seed = map[string]func(*testing.T){
	"create_connection_manager(database_url, ...)": func(t *testing.T) {
		_, pool := seedPool(t, "pool_size=2", "max_overflow=1")
		wantFigures(t, pool, "size", pool.Stats().Size, 2)
	},
	"EnhancedConnectionManager(config, database_url)": func(t *testing.T) {
		cfg, err := managedpg.ParseDSN(pgtest.Shared(t).DSN())
		rig.NoError(t, err)
		cfg.PoolSize, cfg.MaxOverflow = 2, 1
		db, err := managedpg.OpenDB(cfg)
		rig.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		rig.NoError(t, db.Ping())
		wantFigures(t, rig.PoolOf(t, db), "size", rig.PoolOf(t, db).Stats().Size, 2)
	},
	"get_db_manager()": func(t *testing.T) {
		_, pool := seedPool(t, "pool_name=manager")
		if !slices.Contains(managedpg.Pools(), pool) || pool.Name() != "manager" {
			t.Errorf("Pools lacks the pool %q", pool.Name())
		}
	},
	"get_session()": func(t *testing.T) {
		db, pool := seedPool(t)
		c, err := db.Conn(t.Context())
		rig.NoError(t, err)
		rig.Exec(t, c, "SELECT 1")
		wantFigures(t, pool, "checked_out", pool.Stats().CheckedOut, 1)
		rig.NoError(t, c.Close())
		wantFigures(t, pool, "checked_out", pool.Stats().CheckedOut, 0)
	},
	"session_scope()": func(t *testing.T) {
		db := rig.Open(t, pgtest.Database(t))
		rig.Exec(t, db, "CREATE TABLE kept (id int)")
		insert := func(id int, then error) error {
			return managedpg.InTx(t.Context(), db, nil, func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO kept VALUES ($1)", id); err != nil {
					return err
				}
				return then
			})
		}
		rig.NoError(t, insert(1, nil))
		changedMind := errors.New("changed my mind")
		if err := insert(2, changedMind); !errors.Is(err, changedMind) {
			t.Errorf("InTx says %v", err)
		}
		if ids := rig.Value[string](t, db, "SELECT string_agg(id::text, ',') FROM kept"); ids != "1" {
			t.Errorf("%s are kept", ids)
		}
	},

	"get_pool_metrics()": func(t *testing.T) {
		_, pool := seedPool(t)
		wantFigures(t, pool, "total_checkouts", pool.Stats().TotalCheckouts, 1)
	},
	"get_connection_pool_metrics()": func(t *testing.T) {
		_, pool := seedPool(t, "pool_size=2")
		text, err := json.Marshal(pool.Stats())
		rig.NoError(t, err)
		for _, name := range []string{"size", "checked_out", "checked_in", "overflow", "total_checkouts",
			"total_connections_created", "failed_checkouts", "avg_checkout_time", "leaked_connections", "utilization"} {
			if !strings.Contains(string(text), `"`+name+`":`) {
				t.Errorf("the JSON lacks %s: %s", name, text)
			}
		}
	},
	"get_health_status()":                   func(t *testing.T) { seedHealth(t) },
	"get_health_monitor_stats()":            func(t *testing.T) { seedHealth(t) },
	"health_monitor.get_health_stats()":     func(t *testing.T) { seedHealth(t) },
	"healthy":                               func(t *testing.T) { seedHealth(t) },
	"health_check.response_time":            func(t *testing.T) { seedHealth(t) },
	"success_rate":                          func(t *testing.T) { seedHealth(t) },
	"total_checks":                          func(t *testing.T) { seedHealth(t) },
	"detect_connection_leaks()":             func(t *testing.T) { seedLeak(t) },
	"leak_detector.detect_leaks()":          func(t *testing.T) { seedLeak(t) },
	"get_failover_status()":                 func(t *testing.T) { seedFailover(t) },
	"failover_manager.get_failover_stats()": func(t *testing.T) { seedFailover(t) },
	"current_url":                           func(t *testing.T) { seedFailover(t) },
	"is_primary":                            func(t *testing.T) { seedFailover(t) },
	"failover_count":                        func(t *testing.T) { seedFailover(t) },

	"reset_metrics()": func(t *testing.T) {
		_, pool := seedPool(t)
		pool.ResetStats()
		s := pool.Stats()
		wantFigures(t, pool, "total_checkouts", s.TotalCheckouts, 0)
		wantFigures(t, pool, "open", s.Open, 1)
	},
	"dispose_connections()": func(t *testing.T) {
		db, pool := seedPool(t, "pool_size=2")
		wantFigures(t, pool, "open", pool.Stats().Open, 1)
		pool.Drain()
		rig.Eventually(t, "nothing is open", func() bool { return pool.Stats().Open == 0 })
		rig.NoError(t, db.Ping())
	},
	"dispose()": func(t *testing.T) {
		db, pool := seedPool(t)
		rig.NoError(t, db.Close())
		if db.Ping() == nil || slices.Contains(managedpg.Pools(), pool) {
			t.Error("there is a pool still")
		}
	},

	"size":                      func(t *testing.T) { seedFigures(t) },
	"checked_out":               func(t *testing.T) { seedFigures(t) },
	"checked_in":                func(t *testing.T) { seedFigures(t) },
	"overflow":                  func(t *testing.T) { seedFigures(t) },
	"total_checkouts":           func(t *testing.T) { seedFigures(t) },
	"total_connections_created": func(t *testing.T) { seedFigures(t) },
	"avg_checkout_time":         func(t *testing.T) { seedFigures(t) },
	"utilization":               func(t *testing.T) { seedFigures(t) },
	"failed_checkouts": func(t *testing.T) {
		db, pool := seedPool(t, "pool_size=1", "max_overflow=0", "pool_timeout=0")
		takes(t, db, 1)
		wantFigures(t, pool, "failed_checkouts", pool.Stats().FailedCheckouts, 1)
		wantFigures(t, pool, "checkout_timeouts", pool.Stats().CheckoutTimeouts, 1)
	},
	"leaked_connections": func(t *testing.T) {
		db, pool := seedPool(t, "leak_threshold=20ms")
		keep(t, db, 1)
		rig.Eventually(t, "the connection counts as leaked", func() bool { return pool.Stats().LeakedConnections == 1 })
	},
	"leak.connection_id": func(t *testing.T) {
		if r := seedLeak(t); r.ConnectionID != 1 || r.BackendPID == 0 {
			t.Errorf("it is connection %d, backend pid %d", r.ConnectionID, r.BackendPID)
		}
	},
	"leak.duration": func(t *testing.T) {
		if r := seedLeak(t); r.Duration < 20*time.Millisecond {
			t.Errorf("it is held for %v", r.Duration)
		}
	},
	"leak.checked_out_by": func(t *testing.T) {
		if r := seedLeak(t); !strings.Contains(r.Caller, "_test.go:") || len(r.Stack) == 0 {
			t.Errorf("the caller is %q, with the stack %q", r.Caller, r.Stack)
		}
	},

	"pool_size": func(t *testing.T) {
		db, _ := seedPool(t, "pool_size=2", "max_overflow=0", "pool_timeout=0")
		takes(t, db, 2)
	},
	"max_overflow": func(t *testing.T) {
		db, _ := seedPool(t, "pool_size=2", "max_overflow=1", "pool_timeout=0")
		takes(t, db, 3)
	},
	"pool_timeout": func(t *testing.T) {
		db, _ := seedPool(t, "pool_size=1", "max_overflow=0", "pool_timeout=0.05")
		start := time.Now()
		takes(t, db, 1)
		if waited := time.Since(start); waited < 50*time.Millisecond {
			t.Errorf("a checkout waits for %v only", waited)
		}
	},
	"pool_recycle": func(t *testing.T) {
		_, pool := seedPool(t, "pool_size=1", "pool_recycle=20ms")
		rig.Eventually(t, "the connection is recycled", func() bool { return pool.Stats().ClosedBy[stats.ClosedRecycle] == 1 })
	},
	"pool_pre_ping": func(t *testing.T) {
		dsn := pgtest.Database(t)
		db := rig.Open(t, rig.WithKeys(dsn, "pool_size=1"))
		rig.NoError(t, db.Ping())
		if _, err := pgtest.Shared(t).TerminateBackends(dbName(t, dsn)); err != nil {
			t.Fatal(err)
		}
		rig.Exec(t, db, "SELECT 1")
	},
	"echo_pool": func(t *testing.T) {
		cfg, err := managedpg.ParseDSN(rig.WithKeys(pgtest.Shared(t).DSN(), "echo_pool=true"))
		rig.NoError(t, err)
		var told atomic.Int64
		cfg.Logger = slog.New(counting{slog.DiscardHandler, "managedpg: checkout", &told})
		db, err := managedpg.OpenDB(cfg)
		rig.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		rig.NoError(t, db.Ping())
		if told.Load() != 1 {
			t.Errorf("%d checkouts are logged", told.Load())
		}
	},
	"leak_detection_enabled": func(t *testing.T) {
		db, pool := seedPool(t, "leak_detection=false", "leak_threshold=1ns")
		keep(t, db, 1)
		if n := len(pool.Leaks()) + len(pool.Holders(1)); n != 0 {
			t.Errorf("%d leaks without leak detection", n)
		}
	},
	"leak_threshold_seconds": func(t *testing.T) {
		db, pool := seedPool(t, "leak_threshold=0.02")
		keep(t, db, 1)
		rig.Eventually(t, "the connection is a leak", func() bool { return len(pool.Leaks()) == 1 })
	},
	"health_check_enabled": func(t *testing.T) { seedUnchecked(t) },
	"health_monitoring":    func(t *testing.T) { seedUnchecked(t) },
	"health_check_interval": func(t *testing.T) {
		_, pool := seedPool(t, "health_check_interval=20ms")
		rig.Eventually(t, "a third check", func() bool { return pool.Health().TotalChecks >= 3 })
	},
	"failover_enabled": func(t *testing.T) {
		db := rig.Open(t, rig.WithKeys(nobody, "failover=false", further(t)))
		if err := db.Ping(); err == nil {
			t.Error("another server is used")
		}
	},
	"failover_urls": func(t *testing.T) { seedFailover(t) },
	"failover_retry_attempts": func(t *testing.T) {
		db := rig.Open(t, rig.WithKeys(nobody, "failover_retry_attempts=1", "failover_urls="+url.QueryEscape(nobodyElse)))
		start := time.Now()
		if err := db.Ping(); !errors.Is(err, managedpg.ErrNoEndpoint) {
			t.Errorf("Ping says %v", err)
		}
		if waited := time.Since(start); waited > 10*time.Second {
			t.Errorf("after %v", waited)
		}
	},
	"failover_retry_delay": func(t *testing.T) {
		db := rig.Open(t, rig.WithKeys(nobody, "failover_retry_attempts=3", "failover_retry_delay=100ms", "health_check=false",
			"failover_urls="+url.QueryEscape(nobodyElse)))
		start := time.Now()
		if err := db.Ping(); !errors.Is(err, managedpg.ErrNoEndpoint) {
			t.Errorf("Ping says %v", err)
		}
		if waited := time.Since(start); waited < 2*50*time.Millisecond {
			t.Errorf("three rounds took %v", waited)
		}
	},

	"DATABASE_URL": func(t *testing.T) {
		t.Setenv("DATABASE_URL", pgtest.Shared(t).DSN())
		rig.NoError(t, rig.Open(t, "").Ping())
	},
	"DATABASE_FAILOVER_URLS": func(t *testing.T) {
		t.Setenv("DATABASE_URL", nobody)
		t.Setenv("DATABASE_FAILOVER_URLS", nobodyElse+","+pgtest.Shared(t).DSN())
		db := rig.Open(t, "")
		rig.NoError(t, db.Ping())
		if n := len(rig.PoolOf(t, db).Failover().Endpoints); n != 3 {
			t.Errorf("there are %d servers", n)
		}
	},
	"DB_POOL_SIZE": func(t *testing.T) {
		t.Setenv("DB_POOL_SIZE", "3")
		_, pool := seedPool(t)
		wantFigures(t, pool, "size", pool.Stats().Size, 3)
	},
	"DB_MAX_OVERFLOW": func(t *testing.T) {
		t.Setenv("DB_POOL_SIZE", "3")
		t.Setenv("DB_MAX_OVERFLOW", "4")
		_, pool := seedPool(t)
		wantFigures(t, pool, "max_overflow", pool.Stats().MaxOverflow, 4)
	},
}

// Two addresses where nobody listens.
const (
	nobody     = "postgres://postgres@127.0.0.1:1/postgres?sslmode=disable"
	nobodyElse = "postgres://postgres@127.0.0.1:2/postgres?sslmode=disable"
)

// further is the shared server as a further DSN.
func further(t *testing.T) string { return "failover_urls=" + url.QueryEscape(pgtest.Shared(t).DSN()) }

// seedPool opens a pool on the shared server and uses it once.
func seedPool(t *testing.T, keys ...string) (*sql.DB, *managedpg.Pool) {
	t.Helper()
	dsn := pgtest.Shared(t).DSN()
	if len(keys) > 0 {
		dsn = rig.WithKeys(dsn, keys...)
	}
	db := rig.Open(t, dsn)
	rig.Exec(t, db, "SELECT 1")
	return db, rig.PoolOf(t, db)
}

func wantFigures(t *testing.T, pool *managedpg.Pool, name string, got, want int64) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %d, want %d, in\n%v", name, got, want, pool.Stats())
	}
}

// keep takes n connections and holds them until the test ends.
func keep(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	for range n {
		c, err := db.Conn(t.Context())
		rig.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
	}
}

// takes wants n connections to be had, and no more.
func takes(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	keep(t, db, n)
	if c, err := db.Conn(t.Context()); !errors.Is(err, managedpg.ErrPoolTimeout) {
		if c != nil {
			_ = c.Close()
		}
		t.Errorf("one more says %v", err)
	}
}

func seedFigures(t *testing.T) {
	db, pool := seedPool(t, "pool_size=2", "max_overflow=2")
	pool.ResetStats()
	var all []*sql.Conn
	for range 3 {
		c, err := db.Conn(t.Context())
		rig.NoError(t, err)
		all = append(all, c)
	}
	s := pool.Stats()
	wantFigures(t, pool, "size", s.Size, 2)
	wantFigures(t, pool, "checked_out", s.CheckedOut, 3)
	wantFigures(t, pool, "checked_in", s.CheckedIn, 0)
	wantFigures(t, pool, "overflow", s.Overflow, 1)
	wantFigures(t, pool, "total_checkouts", s.TotalCheckouts, 3)
	wantFigures(t, pool, "total_connections_created", s.TotalConnectionsCreated, 3)
	if s.Utilization != 0.75 {
		t.Errorf("utilization is %v", s.Utilization)
	}
	if s.AvgCheckoutTime <= 0 {
		t.Errorf("avg_checkout_time is %v", s.AvgCheckoutTime)
	}
	for _, c := range all {
		rig.NoError(t, c.Close())
	}
	rig.Eventually(t, "two are kept", func() bool { s := pool.Stats(); return s.CheckedIn == 2 && s.Overflow == 0 })
}

func seedHealth(t *testing.T) {
	_, pool := seedPool(t)
	h := pool.CheckNow(t.Context())
	if !h.Healthy || h.TotalChecks < 1 || h.SuccessRate != 100 || h.ResponseTime <= 0 || len(h.Endpoints[0].History) == 0 {
		t.Errorf("health is %+v", h)
	}
}

func seedUnchecked(t *testing.T) {
	_, pool := seedPool(t, "health_check=false")
	if h := pool.CheckNow(t.Context()); h.TotalChecks != 0 {
		t.Errorf("%d checks", h.TotalChecks)
	}
}

// seedLeak leaks a connection, and is the report of it.
func seedLeak(t *testing.T) leak.Report {
	t.Helper()
	db, pool := seedPool(t, "leak_threshold=20ms")
	keep(t, db, 1)
	rig.Eventually(t, "a leak", func() bool { return len(pool.Leaks()) == 1 })
	return pool.Leaks()[0]
}

// seedFailover finds the first server dead.
func seedFailover(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(nobody, further(t)))
	rig.NoError(t, db.Ping())
	s := rig.PoolOf(t, db).Failover()
	if want := pgtest.Shared(t).Addr() + "/postgres"; s.Current != want || s.IsPrimary || s.FailoverCount != 1 {
		t.Errorf("status is %+v, want %s to be the current one", s, want)
	}
}

// counting is a log handler that counts the records with a message.
type counting struct {
	slog.Handler
	message string
	n       *atomic.Int64
}

func (c counting) Enabled(context.Context, slog.Level) bool { return true }

func (c counting) Handle(_ context.Context, r slog.Record) error {
	if r.Message == c.message {
		c.n.Add(1)
	}
	return nil
}
