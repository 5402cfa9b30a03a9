// Package clients uses managedpg as the users of other libraries do: sqlx, ent, GORM and so on, each in a file of its own, on a
// primary that is lost on the way and a standby that takes over.
package clients

import (
	"log/slog"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(pgtest.Suite(m),
		goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1")) // GORM's cache of statements is never stopped
}

// servers are a primary and its standby.
type servers struct {
	*testing.T
	primary, standby *pgtest.Cluster
	dsn              string // names both
	base             string // of the test, where it is told
}

// eachBase runs a test over both base drivers: over pgx with a pool that the driver governs, over lib/pq with database/sql's.
func eachBase(t *testing.T, test func(*servers)) {
	for _, keys := range []string{"base_driver=pgx&pool_size=4", "base_driver=pq"} {
		t.Run(keys, func(t *testing.T) { test(start(t, keys+"&leak_threshold=10s")) })
	}
}

func start(t *testing.T, keys string) *servers {
	t.Helper()
	primary := pgtest.Start(t)
	standby, err := primary.Standby()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { standby.Close() })
	dsn := "postgres://postgres@" + primary.Addr() + "," + standby.Addr() + "/postgres?sslmode=disable&" + keys +
		"&pool_name=" + url.QueryEscape(t.Name())
	return &servers{T: t, primary: primary, standby: standby, dsn: dsn}
}

// pool is the one that the test has opened.
func (s *servers) pool() *managedpg.Pool {
	s.Helper()
	for _, p := range managedpg.Pools() {
		if p.Name() == s.Name() {
			return p
		}
	}
	s.Fatalf("no pool %q", s.Name())
	return nil
}

// failOver kills the primary once the standby has all that it wrote, and promotes the standby.
func (s *servers) failOver() {
	s.Helper()
	written, err := s.primary.QueryString("SELECT pg_current_wal_flush_lsn()")
	if err != nil {
		s.Fatal(err)
	}
	eventually(s.T, "the standby has it all", func() bool {
		all, err := s.standby.QueryString("SELECT pg_last_wal_replay_lsn() >= '" + written + "'")
		return err == nil && all == "t"
	})
	if err := s.primary.Kill(); err != nil {
		s.Fatal(err)
	}
	if err := s.standby.Promote(); err != nil {
		s.Fatal(err)
	}
}

// check is for the end of a test that has failed over: it happened once, and the client has given everything back.
func (s *servers) check() {
	s.Helper()
	pool := s.pool()
	if f := pool.Failover(); f.FailoverCount != 1 || f.IsPrimary {
		s.Errorf("failed over %d times, and is on %q", f.FailoverCount, f.Current)
	}
	eventually(s.T, "all connections given back", func() bool { return pool.Stats().CheckedOut == 0 })
	if st := pool.Stats(); st.TotalLeaks != 0 {
		s.Errorf("%d leaks: %v", st.TotalLeaks, pool.Leaks())
	}
}

// must stops the test at an error.
func (s *servers) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
