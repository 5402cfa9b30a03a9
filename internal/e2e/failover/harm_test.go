package failover_test

import (
	"context"
	"database/sql"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// What works under the bare drivers works here: each test runs one beside ours, through the same fault.

// subject is one way to open a database.
type subject struct {
	name string
	open func(t *testing.T, url string, keys ...string) *sql.DB
}

// subjects are the bare driver and both policies over it.
func subjects(base string) []subject {
	bare := map[string]string{"pgx": "pgx", "pq": "postgres"}[base]
	all := []subject{{"bare", func(t *testing.T, url string, _ ...string) *sql.DB { return rig.OpenWith(t, bare, url) }}}
	for _, governed := range []bool{false, true} {
		c := rig.Combination{Base: base, Governed: governed}
		all = append(all, subject{c.String(), func(t *testing.T, url string, keys ...string) *sql.DB {
			return rig.OpenQuietly(t, c.DSN(url, keys...))
		}})
	}
	return all
}

// eachSubject runs a test with the bare driver and ours, for each base.
func eachSubject(t *testing.T, test func(t *testing.T, s subject)) {
	for _, base := range []string{"pgx", "pq"} {
		for _, s := range subjects(base) {
			t.Run(base+"/"+s.name, func(t *testing.T) { test(t, s) })
		}
	}
}

// calls makes n calls in each of as many goroutines, and counts those that fail.
func calls(t *testing.T, db *sql.DB, goroutines, n int) (failed int64) {
	var count atomic.Int64
	var load sync.WaitGroup
	for range goroutines {
		load.Go(func() {
			for range n {
				if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil && count.Add(1) == 1 {
					t.Log(err)
				}
			}
		})
	}
	load.Wait()
	return count.Load()
}

// findsDown asks for one connection more than there are: its dial finds out that the server takes no new ones.
func findsDown(t *testing.T, db *sql.DB, there int) {
	t.Helper()
	for n := range there + 1 {
		c, err := db.Conn(timeout(t, 100*time.Millisecond))
		if err == nil {
			defer c.Close()
		}
		if (err == nil) != (n < there) {
			t.Fatalf("connection %d: %v", n+1, err)
		}
	}
}

// New connections are impossible, and those that there are go on: whether there is nowhere else to go, or only to a server that is
// as unreachable.
func TestConnectionsOutliveWhatNewOnesMeet(t *testing.T) {
	t.Parallel()
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	rig.NoError(t, err)
	nobody.Close()
	elsewhere := "failover_urls=" + url.QueryEscape("postgres://postgres@"+nobody.Addr().String()+"/postgres?sslmode=disable")
	eachSubject(t, func(t *testing.T, s subject) {
		for _, keys := range [][]string{nil, {elsewhere, "target_session_attrs=any"}, {elsewhere}} {
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
			db := s.open(t, proxy.DSN(pgtest.Database(t)), append(keys, "health_check_interval=50ms")...)
			db.SetMaxIdleConns(4)
			rig.Warm(t, db, 4)
			proxy.SetDown(true)
			findsDown(t, db, 4)
			if failed := calls(t, db, 4, 50); failed > 0 {
				t.Errorf("%d of 200 calls failed on connections that work (%v)", failed, keys)
			}
		}
	})
}

// One connection can't be opened, which its caller has the time to wait for: all others are served, and told at once what they meet.
func TestOneDialHangs(t *testing.T) {
	t.Parallel()
	eachSubject(t, func(t *testing.T, s subject) {
		relay, err := pgtest.NewRelay(pgtest.Shared(t).Addr())
		rig.NoError(t, err)
		defer relay.Close()
		over := make(chan struct{})
		relay.Set(pgtest.RelayMode{Until: over})
		u, err := url.Parse(pgtest.Database(t))
		rig.NoError(t, err)
		u.Host = relay.Addr()
		db := s.open(t, u.String())
		var patient sync.WaitGroup
		patient.Go(func() {
			if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil {
				t.Error(err)
			}
		})
		rig.Eventually(t, "the dial hangs", func() bool { return relay.Asked() == 1 })
		others := func(done func(error) bool) {
			var load sync.WaitGroup
			for range 9 {
				load.Go(func() {
					for ctx := timeout(t, 4*time.Second); ; {
						_, err := db.ExecContext(ctx, "SELECT 1")
						if ctx.Err() != nil {
							t.Error(err)
						} else if !done(err) {
							continue
						}
						return
					}
				})
			}
			load.Wait()
		}
		relay.Set(pgtest.RelayMode{HangUp: true})
		others(func(err error) bool { return err != nil })
		relay.Set(pgtest.RelayMode{})
		others(func(err error) bool { return err == nil }) // what was met a moment ago may still be told
		close(over)
		patient.Wait()
	})
}

// A report on a standby ends well though the standby is promoted meanwhile, and so does a transaction on a server that turns
// read-only by default.
func TestAServerThatChangesItsRoleKeepsItsSessions(t *testing.T) {
	t.Parallel()
	t.Run("promotion", func(t *testing.T) {
		eachSubject(t, func(t *testing.T, s subject) {
			primary := pgtest.Start(t)
			standby := rig.Standby(t, primary)
			db := s.open(t, standby.DSN(), "target_session_attrs=standby", "health_check_interval=50ms")
			rig.Warm(t, db, 2)
			report := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(context.Background(), "SELECT pg_sleep(1.5)")
				report <- err
			}()
			rig.NoError(t, standby.Promote())
			if pool, ok := managedpg.PoolOf(db); ok {
				rig.Eventually(t, "the promotion is seen", func() bool { return pool.Health().Endpoints[0].Role == failover.ReadWrite })
			}
			if err := <-report; err != nil {
				t.Errorf("the report: %v", err)
			}
		})
	})
	t.Run("read-only by default", func(t *testing.T) {
		server := pgtest.Start(t)
		rig.NoError(t, server.Exec("CREATE TABLE kept (n int)"))
		eachSubject(t, func(t *testing.T, s subject) {
			db := s.open(t, server.DSN(), "target_session_attrs=read-write", "health_check_interval=50ms")
			rig.Warm(t, db, 1)
			tx, err := db.Begin()
			rig.NoError(t, err)
			_, err = tx.Exec("INSERT INTO kept VALUES (1)")
			rig.NoError(t, err)
			rig.NoError(t, server.Exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"))
			defer server.Exec("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
			if pool, ok := managedpg.PoolOf(db); ok {
				rig.Eventually(t, "the change is seen", func() bool { return pool.Health().Endpoints[0].Role == failover.ReadOnly })
			}
			_, err = tx.Exec("INSERT INTO kept VALUES (2)")
			rig.NoError(t, err)
			if err := tx.Commit(); err != nil {
				t.Errorf("the transaction: %v", err)
			}
		})
	})
}

// A full server hides no other that would do, and what was opened there stays.
func TestAFullServerHidesNoOther(t *testing.T) {
	t.Parallel()
	healthy := pgtest.Start(t)
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			full := refusing(t, "53300")
			for _, target := range []string{"read-write", "any"} {
				db := rig.OpenQuietly(t, c.DSN("postgres://postgres@"+full+"/postgres?sslmode=disable", "target_session_attrs="+target, to(healthy), "failover_timeout=2s"))
				rig.Warm(t, db, 2)
				if failed := calls(t, db, 2, 50); failed > 0 {
					t.Errorf("%s: %d calls failed", target, failed)
				}
				if s := rig.PoolOf(t, db).Stats(); s.TotalConnectionsCreated > 2 || s.Endpoint != healthy.Addr()+"/postgres" {
					t.Errorf("%s: %d connections were opened, closed %v, the current endpoint is %q", target, s.TotalConnectionsCreated, s.ClosedBy, s.Endpoint)
				}
			}
		})
	}
}

// One member that refuses us ends nobody's wait for a promotion.
func TestARefusalEndsNobodysWait(t *testing.T) {
	t.Parallel()
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			primary := pgtest.Start(t)
			second := rig.Standby(t, primary)
			third := refusing(t, "28000")
			db := rig.OpenQuietly(t, c.DSN(primary.DSN(), to(second), "failover_urls="+url.QueryEscape("postgres://postgres@"+third+"/postgres?sslmode=disable")))
			rig.Warm(t, db, 4)
			rig.PoolOf(t, db).CheckNow(t.Context()) // by now it is known that the third refuses
			rig.NoError(t, primary.Kill())
			rig.Eventually(t, "the loss is seen", func() bool {
				_, err := db.ExecContext(timeout(t, 50*time.Millisecond), "SELECT 1")
				return err != nil && rig.PoolOf(t, db).Failover().Current == ""
			})
			waiting := make(chan error, 8)
			for range cap(waiting) {
				go func() {
					_, err := db.ExecContext(context.Background(), "SELECT 1")
					waiting <- err
				}()
			}
			rig.Eventually(t, "the third has been asked again", func() bool {
				h := rig.PoolOf(t, db).Health()
				return h.Endpoints[2].State == failover.Misconfigured && h.Endpoints[0].State == failover.Down
			})
			rig.NoError(t, second.Promote())
			for range cap(waiting) {
				if err := <-waiting; err != nil {
					t.Errorf("a call that waited for the promotion: %v", err)
				}
			}
		})
	}
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// A forced move is a failover whatever its direction, in the log, the counts and the events.
func TestAForcedMoveIsAFailover(t *testing.T) {
	t.Parallel()
	first, second := twoServers(t)
	db := rig.OpenQuietly(t, rig.WithKeys(first.DSN(), "target_session_attrs=any", "failback=false", "fencing=false", "health_check_interval=100ms", to(second)))
	rig.Warm(t, db, 1)
	reaches := func(to *pgtest.Cluster) {
		t.Helper()
		rig.Eventually(t, "it is on "+to.Addr(), func() bool {
			_, err := db.ExecContext(t.Context(), "SELECT 1")
			return err == nil && rig.PoolOf(t, db).Stats().Endpoint == to.Addr()+"/postgres"
		})
	}
	rig.NoError(t, first.Stop())
	reaches(second)
	rig.NoError(t, first.Restart())
	rig.Eventually(t, "the first is up again", func() bool { return rig.PoolOf(t, db).Health().Endpoints[0].State == failover.Up })
	rig.NoError(t, second.Stop())
	reaches(first)
	if s := rig.PoolOf(t, db).Failover(); s.FailoverCount != 2 || s.FailbackCount != 0 {
		t.Errorf("%d failovers, %d failbacks: %v", s.FailoverCount, s.FailbackCount, s.History)
	}
}

// Nothing has been seen of a pool that nobody has used: it isn't healthy, and CheckNow says what it is.
func TestUnknownIsNotHealthy(t *testing.T) {
	db := rig.Open(t, pgtest.Database(t))
	pool, _ := managedpg.PoolOf(db)
	if h := pool.Health(); h.Healthy || h.Endpoints[0].State != failover.Unknown {
		t.Errorf("%+v", h)
	}
	if h := pool.CheckNow(t.Context()); !h.Healthy {
		t.Errorf("%+v", h)
	}
	closed := rig.Open(t, "postgres://postgres@127.0.0.1:1/postgres?sslmode=disable")
	pool, _ = managedpg.PoolOf(closed)
	if h := pool.CheckNow(t.Context()); h.Healthy {
		t.Errorf("%+v", h)
	}
}
