package failover_test

import (
	"context"
	"database/sql"
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

const manyReaders = 24

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
				var n int
				if err := db.QueryRowContext(context.Background(), "SELECT 1 FROM pg_sleep(0.02)").Scan(&n); err != nil {
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

// on is how many sessions of a pool there are on each server.
func (r *readers) on(t *testing.T, servers ...*pgtest.Cluster) []int {
	t.Helper()
	var counts []int
	for _, s := range servers {
		text, err := s.QueryString("SELECT count(*)::text FROM pg_stat_activity WHERE application_name = '" + r.name + "' AND query LIKE 'SELECT 1 FROM%'")
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

// evenly says that all but a connection or so have an equal part of at least the given number.
func evenly(counts []int, least int) bool {
	total := 0
	for _, n := range counts {
		total += n
	}
	fair := total / len(counts)
	return total >= least && slices.Min(counts) >= fair-1 && slices.Max(counts) <= fair+1
}

// Three standbys share the connections; one is killed under load, and returns.
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
			all := func(what string, holds func() bool, among ...*pgtest.Cluster) {
				t.Helper()
				rig.Eventually(t, what, holds)
				t.Logf("%s: %v", what, r.on(t, among...))
			}
			all("spread", func() bool { return evenly(r.on(t, standbys...), manyReaders-1) }, standbys...)
			if n := r.on(t, primary)[0]; n > 0 {
				t.Errorf("%d connections to the primary", n)
			}
			if n := r.failed.Load(); n > 0 {
				t.Fatalf("%d calls failed, %v", n, *r.err.Load())
			}
			inFlight := int64(r.on(t, standbys[0])[0])
			rig.NoError(t, standbys[0].Kill())
			all("spread over the other two", func() bool { return evenly(r.on(t, standbys[1:]...), manyReaders-1) }, standbys[1:]...)
			if n := r.failed.Swap(0); n > inFlight {
				t.Errorf("%d calls failed where %d were in flight, %v", n, inFlight, *r.err.Load())
			}
			rig.NoError(t, standbys[0].Restart())
			began := time.Now()
			all("spread over all three again", func() bool { return evenly(r.on(t, standbys...), manyReaders-1) }, standbys...)
			t.Logf("%d calls in all, even again after %v", r.calls.Load(), time.Since(began).Round(time.Millisecond))
			if n := r.failed.Load(); n > 0 {
				t.Errorf("%d calls failed after it had come back, %v", n, *r.err.Load())
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
		rig.Eventually(t, "it is too far behind", func() bool {
			rig.NoError(t, primary.Exec("UPDATE lag SET n = n + 1"))
			return health().Lagging
		})
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
