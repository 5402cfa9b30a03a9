package failover_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// What an error says about the server it came from, row by row, met on real servers where they can be made to say so.

// eachBase runs a test with both base drivers, governed by turns.
func eachBase(t *testing.T, test func(t *testing.T, c rig.Combination)) {
	t.Helper()
	for _, c := range []rig.Combination{{Base: "pgx", Governed: true}, {Base: "pq", Governed: false}, {Base: "pgx", Governed: false}, {Base: "pq", Governed: true}} {
		t.Run(c.String(), func(t *testing.T) { test(t, c) })
	}
}

func stays(t *testing.T, db *sql.DB) {
	t.Helper()
	if s := rig.PoolOf(t, db).Failover(); s.FailoverCount != 0 || !s.IsPrimary {
		t.Errorf("it moved: %+v", s)
	}
}

func stateOf(t *testing.T, db *sql.DB, endpoint int) failover.State {
	t.Helper()
	return rig.PoolOf(t, db).Health().Endpoints[endpoint].State
}

// One terminated session (57P01) is no dead server: it is probed, and used on.
func TestTerminatedSessionIsNoDeadServer(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t)
	eachBase(t, func(t *testing.T, c rig.Combination) {
		db := rig.OpenQuietly(t, c.DSN(a.DSN(), "target_session_attrs=any", to(b)))
		rig.Warm(t, db, 2)
		victim, err := db.Conn(t.Context())
		rig.NoError(t, err)
		defer victim.Close()
		pid := rig.Value[int](t, victim, "SELECT pg_backend_pid()")
		ended := make(chan error, 1)
		go func() {
			_, err := victim.ExecContext(context.Background(), "SELECT pg_sleep(60)")
			ended <- err
		}()
		rig.Eventually(t, "it sleeps", func() bool {
			return rig.Value[bool](t, db, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')", pid)
		})
		rig.Exec(t, db, "SELECT pg_terminate_backend($1)", pid)
		if err := <-ended; !errors.Is(err, managedpg.ErrOutcomeUnknown) {
			t.Errorf("the terminated call: %v", err)
		}
		for range 20 {
			rig.Exec(t, db, "SELECT 1")
		}
		rig.Eventually(t, "it is cleared", func() bool { return stateOf(t, db, 0) == failover.Up })
		stays(t, db)
	})
}

// refusing is a server that answers whoever comes with a FATAL error of one SQLSTATE.
func refusing(t *testing.T, sqlstate string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	rig.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				var length [4]byte
				if _, err := io.ReadFull(c, length[:]); err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(length[:]))-4); err != nil {
					return
				}
				fields := "SFATAL\x00VFATAL\x00C" + sqlstate + "\x00Mnot now\x00\x00"
				answer := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(len(fields)+4))...)
				_, _ = c.Write(append(answer, fields...))
			}()
		}
	}()
	return l.Addr().String()
}

// A server that starts up or is shutting down (57P03), crashes (57P02) or has a broken disk (58xxx) is down.
func TestServerThatCannotServeIsDown(t *testing.T) {
	t.Parallel()
	b := pgtest.Start(t)
	for _, sqlstate := range []string{"57P03", "57P02", "08006", "58030"} {
		addr := refusing(t, sqlstate)
		for _, c := range rig.Combinations[1:3] {
			t.Run(sqlstate+","+c.String(), func(t *testing.T) {
				db := rig.OpenQuietly(t, c.DSN("postgres://postgres@"+addr+"/postgres?sslmode=disable", "target_session_attrs=any", to(b)))
				rig.Exec(t, db, "SELECT 1")
				if state := stateOf(t, db, 0); state != failover.Down {
					t.Errorf("it is %s", state)
				}
				if s := rig.PoolOf(t, db).Failover(); s.Current != b.Addr()+"/postgres" {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// The same from a real server, that is started again under those who wait for it.
func TestRestartOfTheOnlyServerOfTwo(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t)
	eachBase(t, func(t *testing.T, c rig.Combination) {
		db := rig.OpenQuietly(t, c.DSN(a.DSN(), "target_session_attrs=any", "failover_urls="+
			url.QueryEscape("postgres://postgres@"+refusing(t, "57P03")+"/postgres?sslmode=disable")))
		rig.Warm(t, db, 2)
		rig.NoError(t, a.Kill())
		answered := make(chan error, 1)
		go func() {
			_, err := db.Exec("SELECT 1")
			answered <- err
		}()
		rig.Eventually(t, "nobody is there", func() bool { return rig.PoolOf(t, db).Health().Endpoints[0].State == failover.Down })
		rig.NoError(t, a.Restart()) // which answers 57P03 for a while
		if err := <-answered; err != nil {
			t.Errorf("the call that waited: %v", err)
		}
	})
}

// A server without room (53300) is alive: where no other will do, the checkout waits for room there.
func TestServerWithoutRoomIsWaitedFor(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t, pgtest.Conf("max_connections=10", "superuser_reserved_connections=3"))
	b := rig.Standby(t, a)
	rig.NoError(t, a.Exec("CREATE ROLE app LOGIN"))
	asApp := func(c *pgtest.Cluster) string { return strings.Replace(c.DSN(), "postgres@", "app@", 1) }
	eachBase(t, func(t *testing.T, c rig.Combination) {
		name := "application_name=" + url.QueryEscape(c.String())
		db := rig.OpenQuietly(t, c.DSN(asApp(a), name, "failover_urls="+url.QueryEscape(asApp(b))))
		rig.Exec(t, db, "SELECT 1")
		taken := rig.OpenWith(t, "pgx", rig.WithKeys(asApp(a), name))
		var held []*sql.Conn
		rig.Eventually(t, "all seven places are taken by ours, and those before have left", func() bool {
			for {
				conn, err := taken.Conn(t.Context())
				if err != nil {
					break // no room
				}
				held = append(held, conn)
			}
			ours := "SELECT count(*) FROM pg_stat_activity WHERE application_name = '" + c.String() + "'"
			return len(held) > 0 && rig.Value[int](t, held[0], ours) == 7
		})
		first, err := db.Conn(t.Context()) // the pool's own, or one that waits
		rig.NoError(t, err)
		defer first.Close()
		var left atomic.Bool
		time.AfterFunc(400*time.Millisecond, func() {
			left.Store(true)
			for _, conn := range held {
				conn.Close()
			}
			taken.Close()
		})
		start := time.Now()
		second, err := db.Conn(t.Context())
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
		defer second.Close()
		if !left.Load() {
			t.Errorf("there was room after %v", time.Since(start))
		}
		if port := rig.Value[int](t, second, "SELECT inet_server_port()"); port != a.Port() {
			t.Errorf("it went to the other server")
		}
		stays(t, db)
	})
}

// A server that won't have us is misconfigured: the next one is used; without one, the checkout fails at once and says so.
func TestServerThatWontHaveUsIsMisconfigured(t *testing.T) {
	t.Parallel()
	methods := map[string]string{"scram": "scram-sha-256", "md5": "md5", "plain": "password"}
	var hba []string
	for user, method := range methods {
		hba = append(hba, "host all "+user+" 127.0.0.1/32 "+method)
	}
	a := pgtest.Start(t, pgtest.HBA(append(hba, "host all all 127.0.0.1/32 trust")...))
	b := pgtest.Start(t)
	for user := range methods {
		encryption := "scram-sha-256"
		if user == "md5" {
			encryption = "md5"
		}
		rig.NoError(t, a.Exec("SET password_encryption = '"+encryption+"'; CREATE ROLE "+user+" LOGIN PASSWORD 'right'"))
	}
	refusals := map[string]string{"no database": "3D000"}
	dsns := map[string]string{"no database": a.DSNFor("nowhere")}
	for user := range methods {
		refusals["wrong password, "+user] = "28P01"
		dsns["wrong password, "+user] = strings.Replace(a.DSN(), "postgres@", user+":wrong@", 1)
	}
	for name, dsn := range dsns {
		for _, c := range rig.Combinations[1:3] {
			t.Run(name+","+c.String(), func(t *testing.T) {
				db := rig.OpenQuietly(t, c.DSN(dsn, "target_session_attrs=any", to(b)))
				rig.Exec(t, db, "SELECT 1")
				if h := rig.PoolOf(t, db).Health().Endpoints[0]; h.State != failover.Misconfigured || h.LastError == "" || strings.Contains(h.LastError, "wrong@") {
					t.Errorf("%+v", h)
				}

				other := "postgres://postgres@" + refusing(t, refusals[name]) + "/postgres?sslmode=disable"
				start := time.Now()
				_, err := rig.OpenQuietly(t, c.DSN(dsn, "failover_urls="+url.QueryEscape(other))).Exec("SELECT 1")
				rig.WantSQLState(t, c, err, refusals[name])
				if !errors.Is(err, managedpg.ErrNoEndpoint) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %v to say %v", took, err)
				}
			})
		}
	}
}

// A caller who changes its mind says nothing about the server.
func TestCallersCancelIsNoEvidence(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t)
	eachBase(t, func(t *testing.T, c rig.Combination) {
		db := rig.OpenQuietly(t, c.DSN(a.DSN(), "target_session_attrs=any", "health_check_interval=1h", to(b)))
		rig.Warm(t, db, 4)
		pool := rig.PoolOf(t, db)
		checks := pool.CheckNow(t.Context()).TotalChecks
		var calls sync.WaitGroup
		for range 8 {
			calls.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(50*time.Millisecond, cancel)
				if _, err := db.ExecContext(ctx, "SELECT pg_sleep(10)"); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		calls.Wait()
		rig.Exec(t, db, "SELECT 1")
		if h := pool.Health(); h.TotalChecks != checks || h.Endpoints[0].State != failover.Up {
			t.Errorf("%d checks, then %d; the server is %s", checks, h.TotalChecks, h.Endpoints[0].State)
		}
		stays(t, db)
	})
}

// The caller's deadline makes a server suspect, and the probe clears it.
func TestCallersDeadlineIsOnlyASuspicion(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t)
	eachBase(t, func(t *testing.T, c rig.Combination) {
		db := rig.OpenQuietly(t, c.DSN(a.DSN(), "target_session_attrs=any", "health_check_interval=1h", "cancel_timeout=0", to(b)))
		rig.Warm(t, db, 2)
		pool := rig.PoolOf(t, db)
		checks := pool.CheckNow(t.Context()).TotalChecks
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		// With cancel_timeout the server would answer, and clear itself.
		_, err := db.ExecContext(ctx, "SELECT pg_sleep(10)")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		// lib/pq asks for a cancel by itself. If the server's answer to that is there first it has cleared itself.
		if c.Base == "pgx" || sqlstate.Of(err) != sqlstate.QueryCanceled {
			rig.Eventually(t, "it is probed", func() bool { return pool.Health().TotalChecks > checks })
		}
		rig.Eventually(t, "it is cleared", func() bool { return stateOf(t, db, 0) == failover.Up })
		rig.Exec(t, db, "SELECT 1")
		stays(t, db)
	})
}

// A statement that writes in a READ ONLY transaction (25006) is a bug of the application's, and drains nothing.
func TestWriteInAReadOnlyTransactionDrainsNothing(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t)
	createCalls(t, a)
	b := rig.Standby(t, a)
	eachBase(t, func(t *testing.T, c rig.Combination) {
		name := url.QueryEscape(c.String())
		pids := "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE application_name = '" + c.String() + "'"
		db := rig.OpenQuietly(t, c.DSN(a.DSN(), "application_name="+name, to(b)))
		defer db.Close()
		rig.Warm(t, db, 2)
		rig.PoolOf(t, db).CheckNow(t.Context()) // which has a session of its own
		before, err := a.QueryString(pids)
		rig.NoError(t, err)
		for range 10 {
			tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
			rig.NoError(t, err)
			_, err = tx.Exec("INSERT INTO calls VALUES ('x', 1, 1)")
			rig.WantSQLState(t, c, err, "25006")
			rig.NoError(t, tx.Rollback())
		}
		rig.PoolOf(t, db).CheckNow(t.Context())
		rig.Exec(t, db, "INSERT INTO calls VALUES ('x', 1, 1)")
		stays(t, db)
		if after, err := a.QueryString(pids); err != nil || after != before || before == "" {
			t.Errorf("the sessions were %s, are %s; %v", before, after, err)
		}
	})
}

// A primary that is made a standby, under a pool that wants to write, is left as soon as a write finds out (25006), without
// waiting for the next probe.
func TestLostRoleIsLeft(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t)
	createCalls(t, a)
	b := rig.Standby(t, a)
	rig.Eventually(t, "the standby has the table", func() bool {
		n, err := b.QueryString("SELECT count(*) FROM pg_class WHERE relname = 'calls'")
		return err == nil && n == "1"
	})
	var dbs []*sql.DB
	for _, c := range rig.Combinations {
		db := rig.OpenQuietly(t, c.DSN(a.DSN(), "health_check_interval=1h", to(b)))
		rig.Warm(t, db, 2)
		dbs = append(dbs, db)
	}
	rig.NoError(t, a.Exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"))
	rig.Eventually(t, "it is read-only", func() bool {
		v, err := a.QueryString("SHOW default_transaction_read_only")
		return err == nil && v == "on"
	})
	rig.NoError(t, b.Promote())
	for i, db := range dbs {
		failed := 0
		rig.Eventually(t, rig.Combinations[i].String()+" writes on the new primary", func() bool {
			_, err := db.Exec("INSERT INTO calls VALUES ('x', 1, current_setting('port')::int)")
			if err != nil {
				failed++
			}
			return err == nil
		})
		t.Logf("%v: %d errors", rig.Combinations[i], failed)
	}
}
