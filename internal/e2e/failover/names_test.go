package failover_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// The addresses of the tests' names. One port leads to a server on each.
const (
	firstAddress  = "127.0.0.2"
	secondAddress = "127.0.0.3"
)

// serverAt starts a server at one of the addresses, on the port of another, or on any.
func serverAt(t *testing.T, address string, beside *pgtest.Cluster, opts ...pgtest.Option) *pgtest.Cluster {
	t.Helper()
	opts = append(opts, pgtest.Conf("listen_addresses="+address))
	if beside != nil {
		opts = append(opts, pgtest.Port(beside.Port()))
	}
	return pgtest.Start(t, opts...)
}

func (n *name) dsn(port int, keys ...string) string {
	return rig.WithKeys("postgres://postgres@"+net.JoinHostPort(n.host, strconv.Itoa(port))+"/postgres", append([]string{"sslmode=disable"}, keys...)...)
}

// eachBare runs a test with both base drivers without managedpg, for what it says beside ours.
func eachBare(t *testing.T, dsn string, test func(base string, db *sql.DB)) {
	t.Helper()
	for base, driver := range map[string]string{"pgx": "pgx", "pq": "postgres"} {
		db, err := sql.Open(driver, dsn)
		rig.NoError(t, err)
		test(base, db)
		rig.NoError(t, db.Close())
	}
}

// A standby and the primary behind one name: who wants to write is on the primary at once.
func TestNameOfAStandbyAndAPrimary(t *testing.T) {
	t.Parallel()
	const secondAddress = "127.0.0.1" // where basebackup looks for it
	primary := pgtest.Start(t)
	standby, err := primary.Standby(pgtest.Conf("listen_addresses="+firstAddress), pgtest.Port(primary.Port()))
	rig.NoError(t, err)
	t.Cleanup(func() { _ = standby.Close() })
	n := newName(t, firstAddress, secondAddress)
	wants := n.dsn(primary.Port(), "target_session_attrs=read-write")
	eachBare(t, wants, func(base string, db *sql.DB) { t.Logf("bare %s: %v", base, db.PingContext(t.Context())) })
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			db := rig.Open(t, c.DSN(wants))
			db.SetMaxIdleConns(0)
			for range 10 {
				if at := rig.Value[string](t, db, "SELECT host(inet_server_addr())"); at != secondAddress {
					t.Fatalf("it is at %s", at)
				}
			}
			h := rig.PoolOf(t, db).Health()
			if len(h.Endpoints) != 2 || !strings.HasSuffix(h.Endpoints[0].Endpoint, "/postgres ("+firstAddress+")") {
				t.Errorf("%+v", h.Endpoints)
			}
			if current := rig.PoolOf(t, db).Failover(); !current.IsPrimary || current.FailoverCount != 0 {
				t.Errorf("%+v", current)
			}
		})
	}

	// The standby is promoted beside the primary, which is never written to again.
	dbs, held := make(map[string]*sql.DB), make(map[string]*sql.Conn)
	for _, c := range rig.Combinations {
		db := rig.OpenQuietly(t, c.DSN(wants, "health_check_interval=100ms"))
		conn, err := db.Conn(t.Context())
		rig.NoError(t, err)
		defer conn.Close()
		rig.Exec(t, conn, "SELECT 1")
		rig.PoolOf(t, db).CheckNow(t.Context())
		dbs[c.String()], held[c.String()] = db, conn
	}
	rig.NoError(t, standby.Promote())
	for name, db := range dbs {
		rig.Eventually(t, name+": the old primary is fenced", func() bool {
			return rig.PoolOf(t, db).CheckNow(t.Context()).Endpoints[1].Fenced
		})
		rig.Eventually(t, name+": nothing more is written to it", func() bool {
			_, err := held[name].ExecContext(t.Context(), "CREATE TEMPORARY TABLE t ()")
			return err != nil
		})
		if at := rig.Value[string](t, db, "SELECT host(inet_server_addr())"); at != firstAddress {
			t.Errorf("%s: it is at %s", name, at)
		}
	}
}

// hangsAt makes an address accept and say nothing, and counts what it accepts.
func hangsAt(t *testing.T, address string, port int) *atomic.Int64 {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	rig.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	accepted := new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() { defer c.Close(); _, _ = io.Copy(io.Discard, c) }()
		}
	}()
	return accepted
}

// An address that accepts and then says nothing costs one connection its connect_timeout.
func TestNameWhoseFirstAddressHangs(t *testing.T) {
	t.Parallel()
	server := serverAt(t, secondAddress, nil)
	accepted := hangsAt(t, firstAddress, server.Port())
	n := newName(t, firstAddress, secondAddress)
	dsn := n.dsn(server.Port(), "connect_timeout=1")
	eachBare(t, dsn, func(base string, db *sql.DB) {
		before := time.Now()
		err := db.PingContext(t.Context())
		t.Logf("bare %s: %v after %v", base, err, time.Since(before).Round(time.Millisecond))
	})
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			db := rig.OpenQuietly(t, c.DSN(dsn, "health_check=false"))
			db.SetMaxIdleConns(0)
			accepted.Store(0)
			for range 10 {
				rig.Exec(t, db, "SELECT 1")
			}
			if dials := accepted.Load(); dials > 2 { // a second one is begun beside a slow one
				t.Errorf("%d connections tried the address that hangs", dials)
			}
			probed := rig.OpenQuietly(t, c.DSN(dsn, "health_check_timeout=1s"))
			rig.Exec(t, probed, "SELECT 1")
		})
	}
}

// The address in use dies under load: at most the statements in flight are lost, and the next one is used.
func TestNameWhoseAddressInUseDies(t *testing.T) {
	t.Parallel()
	a := serverAt(t, firstAddress, nil)
	b := serverAt(t, secondAddress, a, pgtest.OwnSystem())
	createCalls(t, a, b)
	n := newName(t, firstAddress, secondAddress)
	var all []*loadedPool
	for _, c := range rig.Combinations {
		all = append(all, startLoad(t, c.String(), 0, c.DSN(n.dsn(a.Port(), "health_check_interval=200ms"))))
	}
	for _, l := range all {
		rig.Eventually(t, l.name+" gets going", func() bool { return l.leastCalls() >= 5 })
	}
	fault := time.Now()
	rig.NoError(t, a.Kill())
	t.Logf("every worker went on within %v", goesOn(t, all))
	for _, l := range all {
		l.onlyWhatWasInFlight(fault)
		if current := l.pool.Failover().Current; !strings.HasSuffix(current, "("+secondAddress+")") {
			t.Errorf("%s is at %s", l.name, current)
		}
		l.finish()
	}
	rig.NoError(t, a.Restart())
	nothingLostOrDoubled(t, all, rows(t, false, a, b))
}

// A name server that fails, and one whose answer changes.
func TestNameServerFailsAndChanges(t *testing.T) {
	t.Parallel()
	a := serverAt(t, firstAddress, nil)
	b := serverAt(t, secondAddress, a)
	for i, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			n := newName(t, firstAddress)
			dsn := n.dsn(a.Port())
			db := rig.OpenQuietly(t, c.DSN(dsn, "health_check_interval=100ms", fmt.Sprintf("pool_name=names%d", i)))
			at := func() (address string) {
				var err error
				rig.Eventually(t, "an answer", func() bool {
					err = db.QueryRowContext(t.Context(), "SELECT host(inet_server_addr())").Scan(&address)
					return err == nil
				})
				return address
			}
			want := func(address string) {
				t.Helper()
				if got := at(); got != address {
					t.Fatalf("it is at %s, want %s", got, address)
				}
			}
			want(firstAddress)
			n.goAway(true)
			for base, driver := range map[string]string{"pgx": "pgx", "pq": "postgres"} {
				if base == c.Base {
					bare := rig.OpenWith(t, driver, dsn)
					t.Logf("bare %s with the name server away: %v", base, bare.PingContext(t.Context()))
				}
			}
			rig.PoolOf(t, db).Drain()
			if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil {
				t.Errorf("with the name server away: %v", err)
			}
			n.goAway(false)

			n.leadsTo(secondAddress, firstAddress)
			held, err := db.Conn(t.Context())
			rig.NoError(t, err)
			rig.Eventually(t, "both addresses are known", func() bool {
				rig.PoolOf(t, db).CheckNow(t.Context())
				return len(rig.PoolOf(t, db).Health().Endpoints) == 2
			})
			want(firstAddress) // it works: why move?
			n.leadsTo(secondAddress, secondAddress)
			rig.Eventually(t, "new connections go to the address that is left", func() bool { return at() == secondAddress })
			rig.Exec(t, held, "SELECT 1") // one that works, in use, isn't cut
			rig.NoError(t, held.Close())
			rig.Eventually(t, "the old one's connections are given up", func() bool {
				sessions, err := a.QueryString("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
				return err == nil && sessions == "0"
			})
			rig.Eventually(t, "and forgotten", func() bool {
				h := rig.PoolOf(t, db).Health()
				return len(h.Endpoints) == 1 && !strings.Contains(h.Endpoints[0].Endpoint, "(")
			})
		})
	}
	_ = b
}

// lib/pq's own cancel requests dial anew: they must reach the server that the connection leads to.
func TestCancelGoesToTheConnectionsAddress(t *testing.T) {
	t.Parallel()
	b := serverAt(t, secondAddress, nil)
	hangsAt(t, firstAddress, b.Port())
	n := newName(t, firstAddress, secondAddress)
	for _, c := range rig.Combinations {
		for _, timeout := range []string{"0", "1s"} {
			t.Run(c.String()+"/cancel_timeout "+timeout, func(t *testing.T) {
				db := rig.OpenQuietly(t, c.DSN(n.dsn(b.Port(), "connect_timeout=1", "cancel_timeout="+timeout)))
				rig.Exec(t, db, "SELECT 1")
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if _, err := db.ExecContext(ctx, "SELECT pg_sleep(60)"); err == nil {
					t.Error("it slept")
				}
				rig.Eventually(t, "the server has stopped", func() bool {
					n, err := b.QueryString("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")
					return err == nil && n == "0"
				})
			})
		}
	}
}
