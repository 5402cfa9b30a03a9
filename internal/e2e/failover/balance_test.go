package failover_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// readers keep 24 connections at work, each with a query at a time.
type readers struct {
	db      *sql.DB
	name    string
	running sync.WaitGroup
	stop    chan struct{}
	calls   atomic.Int64
	failed  atomic.Int64
	err     atomic.Pointer[error]
}

const (
	manyReaders = 24
	readersAsk  = "SELECT pg_backend_pid() FROM pg_sleep(0.02)"
)

func startReaders(t *testing.T, name string, db *sql.DB) *readers {
	t.Helper()
	db.SetMaxIdleConns(manyReaders)
	r := &readers{db: db, name: name, stop: make(chan struct{})}
	for range manyReaders {
		r.running.Go(func() {
			for {
				select {
				case <-r.stop:
					return
				default:
				}
				var pid int
				if err := db.QueryRowContext(context.Background(), readersAsk).Scan(&pid); err != nil {
					r.failed.Add(1)
					r.err.Store(&err)
				}
				r.calls.Add(1)
			}
		})
	}
	t.Cleanup(r.end)
	return r
}

func (r *readers) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.running.Wait()
}

// hold puts a connection in the place of each of some readers, and says which session each has.
func (r *readers) hold(t *testing.T, n int) map[*sql.Conn]int {
	t.Helper()
	held := make(map[*sql.Conn]int)
	for range n {
		r.stop <- struct{}{}
		c, err := r.db.Conn(context.Background())
		rig.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		held[c] = rig.Value[int](t, c, readersAsk)
	}
	return held
}

// on is how many sessions of a pool there are on each server.
func (r *readers) on(t *testing.T, servers ...*pgtest.Cluster) []int {
	t.Helper()
	var counts []int
	for _, s := range servers {
		text, err := s.QueryString("SELECT count(*)::text FROM pg_stat_activity WHERE application_name = '" + r.name + "' AND query = '" + readersAsk + "'")
		rig.NoError(t, err)
		n, err := strconv.Atoi(text)
		rig.NoError(t, err)
		counts = append(counts, n)
	}
	return counts
}

// cluster is a DSN with all of the servers.
func cluster(servers ...*pgtest.Cluster) string {
	var hosts []string
	for _, s := range servers {
		hosts = append(hosts, s.Addr())
	}
	return "postgres://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable"
}

// evenly says that all servers have an equal part of the readers' connections, give or take one.
func evenly(counts []int) bool {
	fair := manyReaders / len(counts)
	return slices.Min(counts) >= fair-1 && slices.Max(counts) <= fair+1
}

// backWithin is how soon a standby that is back has its share again.
const backWithin = 5 * time.Second

// Three standbys share 24 connections, 8 each. One is killed under load: no more calls fail than were in flight there, and the other two
// have 12 each. It returns: 8 each again within 5 s, no call fails, and whoever holds a connection keeps it.
func TestConnectionsAreSpreadOverStandbys(t *testing.T) {
	primary := pgtest.Start(t)
	standbys := []*pgtest.Cluster{rig.Standby(t, primary), rig.Standby(t, primary), rig.Standby(t, primary)}
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			keys := []string{"target_session_attrs=prefer-standby", "load_balance_hosts=random", "application_name=" + url.QueryEscape(c.String())}
			if c.Governed {
				keys = append(keys, "pool_size=24", "max_overflow=0")
			}
			dsn := cluster(append([]*pgtest.Cluster{primary}, standbys...)...)
			r := startReaders(t, c.String(), rig.OpenQuietly(t, rig.WithKeys(dsn, append(keys, "base_driver="+c.Base)...)))
			even := func(what string, among ...*pgtest.Cluster) time.Duration {
				t.Helper()
				began := time.Now()
				var got []int
				defer func() { t.Logf("%s: %v after %v", what, got, time.Since(began).Round(time.Millisecond)) }()
				rig.Eventually(t, what, func() bool { got = r.on(t, among...); return evenly(got) })
				return time.Since(began)
			}
			failed := func(when string, most int64) {
				t.Helper()
				if n := r.failed.Swap(0); n > most {
					t.Errorf("%s: %d calls failed, at most %d were in flight, %v", when, n, most, *r.err.Load())
				}
			}
			even("spread", standbys...)
			if n := r.on(t, primary)[0]; n > 0 {
				t.Errorf("%d connections to the primary", n)
			}
			failed("at first", 0)
			inFlight := int64(r.on(t, standbys[0])[0]) + 1 // one may be on its way there while they are counted
			rig.NoError(t, standbys[0].Kill())
			even("spread over the other two", standbys[1:]...)
			failed("when a standby was killed", inFlight)

			held := r.hold(t, 6)
			rig.NoError(t, standbys[0].Restart())
			if after := even("spread over all three again", standbys...); after > backWithin {
				t.Errorf("spread again %v after it was back, want within %v", after, backWithin)
			}
			failed("when it was back", 0)
			for c, pid := range held {
				if now := rig.Value[int](t, c, readersAsk); now != pid {
					t.Errorf("a connection in use was of session %d and is of %d", pid, now)
				}
			}
			r.end()
		})
	}
}

// A name has two standbys, and then a third one: the connections are spread over its addresses, at the default health_check_interval.
func TestConnectionsAreSpreadOverAddresses(t *testing.T) {
	primary := pgtest.Start(t)
	var standbys []*pgtest.Cluster
	var addresses []string
	for i := range 3 {
		addresses = append(addresses, fmt.Sprintf("127.0.0.%d", 20+i))
		standbys = append(standbys, rig.Standby(t, primary, pgtest.Conf("listen_addresses="+addresses[i]), pgtest.Port(primary.Port())))
	}
	for _, c := range rig.Combinations[1:3] { // each base, and each policy
		t.Run(c.String(), func(t *testing.T) {
			n := newName(t, addresses[:2]...)
			keys := []string{"target_session_attrs=standby", "load_balance_hosts=random", "base_driver=" + c.Base, "application_name=" + url.QueryEscape(c.String())}
			if c.Governed {
				keys = append(keys, "pool_size=24", "max_overflow=0")
			}
			r := startReaders(t, c.String(), rig.OpenQuietly(t, n.dsn(primary.Port(), keys...)))
			rig.Eventually(t, "spread over two", func() bool { return evenly(r.on(t, standbys[:2]...)) })
			n.leadsTo(addresses...)
			began := time.Now()
			rig.Eventually(t, "spread over three", func() bool { return evenly(r.on(t, standbys...)) })
			t.Logf("spread over three %v after the name had the third", time.Since(began).Round(time.Millisecond))
			if n := r.failed.Load(); n > 0 {
				t.Errorf("%d calls failed, %v", n, *r.err.Load())
			}
			r.end()
		})
	}
}

// A standby whose replay is paused is left while the primary writes, and not while it doesn't; it comes back when it has caught up.
func TestAPausedStandbyIsLeft(t *testing.T) {
	primary := pgtest.Start(t)
	standbys := []*pgtest.Cluster{rig.Standby(t, primary), rig.Standby(t, primary)}
	rig.NoError(t, primary.Exec("CREATE TABLE lag(n int)", "INSERT INTO lag VALUES (0)"))
	for _, base := range []string{"pgx", "pq"} {
		dsn := rig.WithKeys(cluster(append([]*pgtest.Cluster{primary}, standbys...)...), "base_driver="+base, "pool_size=8",
			"target_session_attrs=prefer-standby", "load_balance_hosts=random", "max_replication_lag=500ms", "health_check_interval=100ms")
		db := rig.OpenQuietly(t, dsn)
		pool := rig.PoolOf(t, db)
		rig.NoError(t, db.Ping())
		health := func() failover.EndpointHealth {
			for _, h := range pool.Health().Endpoints {
				if strings.HasPrefix(h.Endpoint, standbys[0].Addr()) {
					return h
				}
			}
			t.Fatal("no such endpoint")
			return failover.EndpointHealth{}
		}
		idle := time.Now() // the primary writes nothing
		rig.Eventually(t, "some probes", func() bool { return health().TotalChecks > 10 && time.Since(idle) > time.Second })
		if h := health(); h.Lagging || h.ReplicationLag != 0 || h.Note != "" {
			t.Errorf("%s: an idle primary's standby: %+v", base, h)
		}
		rig.NoError(t, standbys[0].Exec("SELECT pg_wal_replay_pause()"))
		paused := time.Now()
		rig.Eventually(t, "it is too far behind", func() bool {
			rig.NoError(t, primary.Exec("UPDATE lag SET n = n + 1"))
			return health().Lagging
		})
		found := time.Since(paused)
		if t.Logf("%s: found %v after the pause", base, found.Round(time.Millisecond)); found < 500*time.Millisecond {
			t.Error("it isn't so far behind yet")
		}
		rig.Eventually(t, "it is left", func() bool {
			rig.Warm(t, db, 8)
			n, err := standbys[0].QueryString("SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
			rig.NoError(t, err)
			return n == "1" // the probe's
		})
		if h := health(); h.ReplicationLagBytes == 0 {
			t.Errorf("%s: no bytes: %+v", base, h)
		}
		rig.NoError(t, standbys[0].Exec("SELECT pg_wal_replay_resume()"))
		rig.Eventually(t, "it is back", func() bool { return !health().Lagging })
		rig.NoError(t, db.Close())
	}
}
