package pool_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats"
)

// TestSQLGovernsAsOnBareDriver compares what sql.DB's own limits do with what they do on the bare driver.
func TestSQLGovernsAsOnBareDriver(t *testing.T) {
	settings := map[string]struct {
		set   func(*sql.DB)
		reach func(sql.DBStats) bool // what to wait for before comparing
	}{
		"SetMaxIdleConns":    {func(db *sql.DB) { db.SetMaxIdleConns(2) }, func(s sql.DBStats) bool { return s.Idle == 2 && s.OpenConnections == 2 }},
		"SetMaxIdleConns(0)": {func(db *sql.DB) { db.SetMaxIdleConns(-1) }, func(s sql.DBStats) bool { return s.OpenConnections == 0 }},
		"SetConnMaxLifetime": {func(db *sql.DB) {
			db.SetMaxIdleConns(5)
			db.SetConnMaxLifetime(50 * time.Millisecond)
		}, func(s sql.DBStats) bool { return s.MaxLifetimeClosed == 5 && s.OpenConnections == 0 }},
		"SetConnMaxIdleTime": {func(db *sql.DB) {
			db.SetMaxIdleConns(5)
			db.SetConnMaxIdleTime(50 * time.Millisecond)
		}, func(s sql.DBStats) bool { return s.MaxIdleTimeClosed == 5 && s.OpenConnections == 0 }},
		"SetMaxOpenConns": {func(db *sql.DB) { db.SetMaxOpenConns(5) }, func(s sql.DBStats) bool { return s.Idle == 2 && s.OpenConnections == 2 }},
	}
	for _, base := range []string{"pgx", "pq"} {
		for name, setting := range settings {
			t.Run(base+"/"+name, func(t *testing.T) {
				t.Parallel()
				dsn := pgtest.Database(t)
				bareName := map[string]string{"pgx": "pgx", "pq": "postgres"}[base]
				bare, err := sql.Open(bareName, dsn)
				if err != nil {
					t.Fatal(err)
				}
				defer bare.Close()
				ours := rig.Open(t, rig.WithKeys(dsn, "base_driver="+base))
				figures := func(db *sql.DB) sql.DBStats {
					setting.set(db)
					rig.Warm(t, db, 5)
					rig.Eventually(t, "what the limit does", func() bool { return setting.reach(db.Stats()) })
					s := db.Stats()
					s.WaitDuration = 0
					return s
				}
				want, got := figures(bare), figures(ours)
				if got != want {
					t.Errorf("db.Stats() is %+v, on the bare driver %+v", got, want)
				}
				rig.Eventually(t, "our figures agree with db.Stats()", func() bool {
					s, want := rig.PoolOf(t, ours).Stats(), ours.Stats()
					return s.Open == int64(want.OpenConnections) && s.CheckedOut == int64(want.InUse)
				})
			})
		}
	}
}

// dbName is the database of a URL.
func dbName(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// TestIdleConnectionsLost terminates the backends of idle connections: no call may notice.
func TestIdleConnectionsLost(t *testing.T) {
	for _, c := range rig.Combinations {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,together=%v", c, together), func(t *testing.T) {
				t.Parallel()
				dsn := pgtest.Database(t)
				db := rig.Open(t, c.DSN(dsn))
				db.SetMaxIdleConns(8)
				rig.Warm(t, db, 8)
				// A probe may be there too.
				if n, err := pgtest.Shared(t).TerminateBackends(dbName(t, dsn)); err != nil || n < 8 {
					t.Fatalf("terminated %d backends, %v", n, err)
				}
				var group sync.WaitGroup
				for i := range 8 {
					call := func() {
						if _, err := db.Exec(`SELECT $1::int`, i); err != nil {
							t.Errorf("call %d: %v", i, err)
						}
					}
					if together {
						group.Go(call)
					} else {
						call()
					}
				}
				group.Wait()
			})
		}
	}
}

func TestSteadyLoadDoesNotRedial(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=5", "max_overflow=10"))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 40 {
				rig.Exec(t, db, `SELECT pg_sleep(0.01)`)
			}
		})
	}
	group.Wait()
	if s := rig.PoolOf(t, db).Stats(); s.TotalConnectionsCreated > 10 {
		t.Errorf("%d connections opened for a load of 8", s.TotalConnectionsCreated)
	}
}

func TestMostRecentlyUsedFirst(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=4"))
	rig.Warm(t, db, 4)
	first := rig.Value[int](t, db, `SELECT pg_backend_pid()`)
	for range 5 {
		if pid := rig.Value[int](t, db, `SELECT pg_backend_pid()`); pid != first {
			t.Errorf("backend %d after %d", pid, first)
		}
	}
}

func TestOverflowIsClosedOnReturn(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=2", "max_overflow=-1"))
	rig.Warm(t, db, 6)
	rig.Eventually(t, "four are closed as overflow", func() bool {
		s := rig.PoolOf(t, db).Stats()
		return s.Open == 2 && s.ClosedBy[stats.ClosedOverflow] == 4 && s.CheckedIn == 2
	})
}

func TestRecycle(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=2", "pool_recycle=50ms"))
	rig.Warm(t, db, 2)
	rig.Eventually(t, "old connections are closed while they are free", func() bool {
		return rig.PoolOf(t, db).Stats().ClosedBy[stats.ClosedRecycle] == 2
	})
	rig.Value[int](t, db, `SELECT 1`)

	governedBySQL := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_recycle=1ms"))
	first := rig.Value[int](t, governedBySQL, `SELECT pg_backend_pid() FROM pg_sleep(0.01)`)
	if second := rig.Value[int](t, governedBySQL, `SELECT pg_backend_pid()`); second == first {
		t.Error("a connection older than pool_recycle is kept by database/sql")
	}
}

func TestIdleTimeoutAndMinIdle(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=5", "pool_idle_timeout=50ms", "pool_min_idle=2"))
	rig.Warm(t, db, 5)
	rig.Eventually(t, "all but pool_min_idle are closed", func() bool {
		s := rig.PoolOf(t, db).Stats()
		return s.Open == 2 && s.ClosedBy[stats.ClosedIdle] >= 3
	})

	ahead := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=5", "pool_min_idle=3"))
	rig.Value[int](t, ahead, `SELECT 1`) // whose connection may come back beside three that were opened meanwhile
	rig.Eventually(t, "pool_min_idle are opened ahead", func() bool { return rig.PoolOf(t, ahead).Stats().CheckedIn >= 3 })
}

func TestDiscardAll(t *testing.T) {
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			cfg, err := managedpg.ParseDSN(c.DSN(pgtest.Database(t), "pool_reset=discard_all"))
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			connects := 0
			cfg.OnConnect = func(context.Context, driver.Conn) error {
				mu.Lock()
				defer mu.Unlock()
				connects++
				return nil
			}
			db, err := managedpg.OpenDB(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			st, err := db.Prepare(`SELECT $1::int`)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			before := rig.Value[string](t, db, `SHOW search_path`)
			pid := rig.Value[int](t, db, `SELECT pg_backend_pid()`)
			for i := range 3 {
				rig.Exec(t, db, `SET search_path = pg_catalog`)
				if path := rig.Value[string](t, db, `SHOW search_path`); path != before {
					t.Errorf("search_path is still %q", path)
				}
				var n int
				if err := st.QueryRow(i).Scan(&n); err != nil || n != i {
					t.Errorf("a prepared statement after DISCARD ALL: %d, %v", n, err)
				}
			}
			if now := rig.Value[int](t, db, `SELECT pg_backend_pid()`); now != pid {
				t.Error("the connection was not kept")
			}
			mu.Lock()
			defer mu.Unlock()
			if connects < 5 {
				t.Errorf("OnConnect ran %d times", connects)
			}
		})
	}
}

func TestManualTransactionIsNotHandedOn(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		for _, begin := range []string{`BEGIN`, `/* now */ begin`, `SELECT 1; START TRANSACTION`} {
			rig.Exec(t, db, begin)
			if _, err := db.Exec(`ROLLBACK TO SAVEPOINT s`); err == nil {
				t.Error("there is a savepoint")
			} else if !strings.Contains(err.Error(), "25P01") {
				t.Errorf("after %q the next user is in its transaction: %v", begin, err)
			}
		}
		if _, err := db.Exec(`BEGIN; SELECT 1/0`); err == nil {
			t.Error("no division by zero")
		}
		rig.Value[int](t, db, `SELECT 1`)
	})
}

func TestDrainAndResetStats(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		db.SetMaxIdleConns(4)
		p := rig.PoolOf(t, db)
		rig.Warm(t, db, 3)
		borrowed, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Drain()
		rig.Eventually(t, "the free ones are closed", func() bool { return p.Stats().Open == 1 })
		rig.Value[int](t, borrowed, `SELECT 1`)
		_ = borrowed.Close()
		rig.Eventually(t, "the borrowed one is closed on return", func() bool { return p.Stats().Open == 0 })
		rig.Value[int](t, db, `SELECT 1`)
		if n := p.Stats().ClosedBy[stats.ClosedDrain]; n != 3 {
			t.Errorf("%d closed by drain", n)
		}

		held, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.ResetStats()
		s := p.Stats()
		if s.TotalCheckouts != 1 || s.TotalCheckins != 0 || s.CheckedOut != 1 || s.TotalConnectionsCreated != s.Open || s.TotalConnectionsClosed != 0 {
			t.Errorf("after ResetStats:\n%v", s)
		}
		_ = held.Close()
		if s := p.Stats(); s.TotalCheckouts != s.TotalCheckins+s.CheckedOut || s.TotalCheckins != 1 {
			t.Errorf("after the check-in:\n%v", s)
		}
	})
}

// TestEchoPool wants each event at debug level, and neither statement nor password.
func TestEchoPool(t *testing.T) {
	var log bytes.Buffer
	cfg, err := managedpg.ParseDSN(strings.Replace(
		rig.WithKeys(pgtest.Database(t), "pool_size=1", "max_overflow=0", "echo_pool=true", "pool_timeout=0"), "postgres@", "postgres:sekret@", 1))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rig.Exec(t, db, `SELECT 'hidden'`)
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`SELECT 'hidden'`); err == nil {
		t.Error("no timeout")
	}
	_ = c.Close()
	_ = db.Close()
	for _, want := range []string{"dial", "checkout", "checkin", "close", "checkout failed"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in the log:\n%s", want, log.String())
		}
	}
	for _, secret := range []string{"hidden", "sekret"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q in the log:\n%s", secret, log.String())
		}
	}
}

// TestPreparedStatementsStay counts the round trips of a prepared statement over many checkouts.
func TestPreparedStatementsStay(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
			dsn := proxy.DSN(pgtest.Database(t))
			db := rig.Open(t, rig.WithKeys(dsn, "pool_size=1", "max_overflow=0", "base_driver="+base, "health_check=false"))
			st, err := db.Prepare(`SELECT $1::int`)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			mustScan := func() {
				var n int
				if err := st.QueryRow(1).Scan(&n); err != nil {
					t.Fatal(err)
				}
			}
			mustScan()
			proxy.ResetCounts()
			const calls = 20
			for range calls {
				mustScan()
			}
			if n := proxy.RoundTrips(); n != calls {
				t.Errorf("%d calls took %d round trips", calls, n)
			}
		})
	}
}

// TestPreparedStatementsSurvive changes what a prepared statement depends on: at most the call right after may fail, as
// it does on the bare driver.
func TestPreparedStatementsSurvive(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		db.SetMaxOpenConns(0)
		rig.Exec(t, db, `CREATE TABLE p (a int)`)
		rig.Exec(t, db, `INSERT INTO p VALUES (1)`)
		st, err := db.Prepare(`SELECT * FROM p`)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		call := func() error {
			rows, err := st.Query()
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
			}
			return rows.Err()
		}
		if err := call(); err != nil {
			t.Fatal(err)
		}
		changes := []string{`DISCARD ALL`, `DEALLOCATE ALL`, `deallocate prepare all`}
		if c.Governed {
			// Without a cache of ours a statement is sql.DB's alone, and fails as it does on the bare driver.
			changes = append(changes, `ALTER TABLE p ADD COLUMN b int DEFAULT 2`)
		}
		for _, change := range changes {
			rig.Exec(t, db, change)
			failed := 0
			for range 5 {
				if err := call(); err != nil {
					failed++
				}
			}
			if failed > 1 {
				t.Errorf("after %s %d of 5 calls failed", change, failed)
			}
		}
	})
}

func TestStatementCacheLimit(t *testing.T) {
	for _, limit := range []int{0, 2} {
		db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=1", "max_overflow=0", fmt.Sprintf("statement_cache=%d", limit), "base_driver=pq"))
		for i := range 6 {
			st, err := db.Prepare(fmt.Sprintf(`SELECT %d`, i))
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close() // until then they are kept
		}
		if n := rig.Value[int](t, db, `SELECT count(*) FROM pg_prepared_statements`); n != limit {
			t.Errorf("statement_cache=%d keeps %d statements", limit, n)
		}
	}
}

func TestStatsOfPolicies(t *testing.T) {
	governed := rig.PoolOf(t, rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=3", "max_overflow=2"))).Stats()
	if governed.GovernedBy != stats.GovernedByDriver || governed.Size != 3 || governed.MaxOverflow != 2 {
		t.Errorf("governed by the driver:\n%v", governed)
	}
	if s := rig.PoolOf(t, rig.Open(t, pgtest.Database(t))).Stats(); s.GovernedBy != stats.GovernedBySQL {
		t.Errorf("governed by database/sql:\n%v", s)
	}
}
