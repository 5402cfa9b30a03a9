package failover_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// readsOnStandbys is a primary with two standbys, and a table there.
func readsOnStandbys(t *testing.T) (primary *pgtest.Cluster, standbys []*pgtest.Cluster) {
	t.Helper()
	primary = pgtest.Start(t)
	standbys = []*pgtest.Cluster{rig.Standby(t, primary), rig.Standby(t, primary)}
	rig.NoError(t, primary.Exec("CREATE TABLE notes(n int)"))
	for _, s := range standbys {
		rig.Eventually(t, "the table is there", func() bool {
			n, err := s.QueryString("SELECT count(*)::text FROM pg_class WHERE relname = 'notes'")
			return err == nil && n == "1"
		})
	}
	return primary, standbys
}

func eachBaseReading(t *testing.T, servers []*pgtest.Cluster, test func(t *testing.T, db *sql.DB)) {
	t.Helper()
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			test(t, rig.OpenQuietly(t, rig.WithKeys(cluster(servers...), "base_driver="+base, "pool_size=4", "pool_name="+base,
				"standby_reads=true", "health_check_interval=100ms", "leak_reclaim_after=1h")))
		})
	}
}

// Where SetMaxOpenConns has database/sql open the connections, the context of a sql.Conn is known from its first call on.
func TestMarkedReadsBelowSetMaxOpenConns(t *testing.T) {
	primary, standbys := readsOnStandbys(t)
	eachBaseReading(t, append([]*pgtest.Cluster{primary}, standbys...), func(t *testing.T, db *sql.DB) {
		db.SetMaxOpenConns(1)
		reads := managedpg.ReadOnly(t.Context())
		inUse := func() (here, there int64) {
			for _, s := range managedpg.Stats() {
				if name := rig.PoolOf(t, db).Name(); s.Name == name {
					here = s.CheckedOut
				} else if s.Name == name+"/reads" {
					there = s.CheckedOut
				}
			}
			return here, there
		}
		for n := range int64(2) {
			held, err := db.Conn(reads)
			rig.NoError(t, err)
			waits := make(chan error, 1)
			go func() {
				c, err := db.Conn(reads)
				if err == nil {
					err = c.PingContext(reads)
				}
				if err == nil {
					err = c.Raw(func(driverConn any) error {
						if managedpg.Unwrap(driverConn) == nil {
							return errors.New("nothing is there")
						}
						if here, there := inUse(); here != 0 || there != 1 {
							return fmt.Errorf("%d connections in use, and %d for reads", here, there)
						}
						return nil
					})
				}
				if c != nil {
					err = errors.Join(err, c.Close())
				}
				waits <- err
			}()
			rig.Eventually(t, "one waits", func() bool { return db.Stats().WaitCount > n })
			_ = held.Raw(func(any) error { return driver.ErrBadConn }) // so that a new one is opened
			_ = held.Close()
			rig.NoError(t, <-waits)
		}
	})
}

type queryer interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

// onStandby says where a query ran.
func onStandby(t *testing.T, ctx context.Context, q queryer) bool {
	t.Helper()
	var yes bool
	rig.NoError(t, q.QueryRowContext(ctx, "SELECT pg_is_in_recovery()").Scan(&yes))
	return yes
}

// What is marked as a read runs on a standby, and everything else on the primary, on one sql.DB.
func TestMarkedReadsRunOnStandbys(t *testing.T) {
	primary, standbys := readsOnStandbys(t)
	eachBaseReading(t, append([]*pgtest.Cluster{primary}, standbys...), func(t *testing.T, db *sql.DB) {
		ctx := context.Background()
		reads := managedpg.ReadOnly(ctx)
		want := func(what string, got, want bool) {
			t.Helper()
			if got != want {
				t.Errorf("%s: on a standby: %v", what, got)
			}
		}
		for range 8 { // handles that were kept change their pool
			want("unmarked", onStandby(t, ctx, db), false)
			want("marked", onStandby(t, reads, db), true)
		}
		st, err := db.PrepareContext(ctx, "SELECT pg_is_in_recovery() AND $1")
		rig.NoError(t, err)
		for range 4 {
			for mark, c := range map[bool]context.Context{false: ctx, true: reads} {
				var yes bool
				rig.NoError(t, st.QueryRowContext(c, true).Scan(&yes))
				want("prepared", yes, mark)
			}
		}
		rig.NoError(t, st.Close())

		tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		rig.NoError(t, err)
		want("in a transaction that is READ ONLY", onStandby(t, ctx, tx), true)
		rig.NoError(t, tx.Commit())
		tx, err = db.BeginTx(ctx, nil)
		rig.NoError(t, err)
		want("in one that isn't", onStandby(t, ctx, tx), false)
		rig.NoError(t, tx.Rollback())

		c, err := db.Conn(reads)
		rig.NoError(t, err)
		want("on a marked sql.Conn", onStandby(t, ctx, c), true)
		rig.NoError(t, c.Raw(func(any) error { return nil }))
		rig.NoError(t, c.Close())

		c, err = db.Conn(ctx)
		rig.NoError(t, err)
		tx, err = c.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		rig.NoError(t, err)
		want("READ ONLY on a fresh sql.Conn", onStandby(t, ctx, tx), true)
		rig.NoError(t, tx.Commit())
		want("and then", onStandby(t, ctx, c), false)
		rig.Exec(t, c, "SET application_name = 'mine'")
		tx, err = c.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		rig.NoError(t, err)
		if name := rig.Value[string](t, tx, "SHOW application_name"); name != "mine" {
			t.Errorf("READ ONLY on a sql.Conn that was used: another session, %q", name)
		}
		rig.NoError(t, tx.Rollback())
		rig.NoError(t, c.Close())

		pool := rig.PoolOf(t, db).Name()
		count := func() (here, reads int64) {
			for _, s := range managedpg.Stats() {
				switch s.Name {
				case pool:
					here = s.TotalCheckouts
				case pool + "/reads":
					reads = s.TotalCheckouts
				}
			}
			return here, reads
		}
		here, there := count()
		tx, err = db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		rig.NoError(t, err)
		rig.NoError(t, tx.Commit())
		if h, r := count(); h > here+1 || r != there+1 {
			t.Errorf("a READ ONLY transaction cost %d checkouts here and %d there", h-here, r-there)
		}
		names := make(map[string]int64)
		for _, s := range managedpg.Stats() {
			names[s.Name] = s.TotalCheckouts
			if s.CheckedOut != 0 || s.TotalCheckouts != s.TotalCheckins {
				t.Errorf("%s: %d in use, %d checkouts, %d check-ins", s.Name, s.CheckedOut, s.TotalCheckouts, s.TotalCheckins)
			}
		}
		if names[pool] == 0 || names[pool+"/reads"] == 0 {
			t.Errorf("pools are %v", names)
		}
	})
	if n := len(managedpg.Pools()); n > 0 {
		t.Errorf("%d pools left open", n)
	}
}

// A write on a read's connection fails as PostgreSQL says it, wherever it runs; and the reads go to the primary without standbys.
func TestReadsWithoutStandbys(t *testing.T) {
	primary, standbys := readsOnStandbys(t)
	for _, base := range []string{"pgx", "pq"} {
		for _, more := range []string{"", "&pool_reset=discard_all"} {
			dsn := rig.WithKeys(cluster(append([]*pgtest.Cluster{primary}, standbys...)...), "base_driver="+base, "pool_size=4",
				"standby_reads=true", "health_check_interval=100ms"+more)
			db := rig.OpenQuietly(t, dsn)
			reads := managedpg.ReadOnly(context.Background())
			fails := func(where string) {
				t.Helper()
				for range 3 {
					_, err := db.ExecContext(reads, "INSERT INTO notes VALUES (1)")
					if rig.SQLState(err) != "25006" {
						t.Errorf("%s%s, %s: a write of a read: %v", base, more, where, err)
					}
					// lib/pq begins what isn't to be READ ONLY as READ WRITE.
					tx, err := db.BeginTx(reads, nil)
					rig.NoError(t, err)
					if n := rig.Value[int](t, tx, "SELECT 1"); n != 1 {
						t.Error(n)
					}
					if _, err = tx.ExecContext(reads, "INSERT INTO notes VALUES (1)"); rig.SQLState(err) != "25006" {
						t.Errorf("%s%s, %s: a write in a transaction of reads: %v", base, more, where, err)
					}
					rig.NoError(t, tx.Rollback())
				}
			}
			fails("on a standby")
			for _, s := range standbys {
				rig.NoError(t, s.Stop())
			}
			rig.Eventually(t, "reads on the primary", func() bool {
				var yes bool
				err := db.QueryRowContext(reads, "SELECT pg_is_in_recovery()").Scan(&yes)
				return err == nil && !yes
			})
			fails("on the primary")
			rig.Exec(t, db, "INSERT INTO notes VALUES (2)")
			for _, s := range standbys {
				rig.NoError(t, s.Restart())
			}
			rig.Eventually(t, "reads on a standby again", func() bool { return onStandby(t, reads, db) })
			rig.NoError(t, db.Close())
		}
	}
}

// A load of reads and writes: each server's own count says who ran what. A standby that dies costs what is in flight on it.
func TestReadsAndWritesUnderLoad(t *testing.T) {
	primary, standbys := readsOnStandbys(t)
	executed := func(c *pgtest.Cluster, what string) int {
		t.Helper()
		text, err := c.QueryString("SELECT " + what + "::text FROM pg_stat_database WHERE datname = 'postgres'")
		rig.NoError(t, err)
		n, err := strconv.Atoi(text)
		rig.NoError(t, err)
		return n
	}
	eachBaseReading(t, append([]*pgtest.Cluster{primary}, standbys...), func(t *testing.T, db *sql.DB) {
		var failed, misplaced atomic.Int64
		var why atomic.Value
		stop := make(chan struct{})
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				ctx := context.Background()
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					var err error
					var standby bool
					if i%2 == 0 {
						err = db.QueryRowContext(managedpg.ReadOnly(ctx), "SELECT pg_is_in_recovery()").Scan(&standby)
						if err == nil && !standby {
							misplaced.Add(1)
						}
					} else {
						_, err = db.ExecContext(ctx, "INSERT INTO notes VALUES ($1)", n)
					}
					if err != nil {
						failed.Add(1)
						why.Store(fmt.Sprint(err))
					}
				}
			})
		}
		before := executed(primary, "tup_inserted")
		rig.Eventually(t, "some writes", func() bool { return executed(primary, "tup_inserted") > before+200 })
		if n := misplaced.Load(); n > 0 {
			t.Errorf("%d reads on the primary", n)
		}
		if n := failed.Load(); n > 0 {
			t.Errorf("%d calls failed: %v", n, why.Load())
		}
		rig.NoError(t, standbys[1].Kill())
		mark := executed(primary, "tup_inserted")
		rig.Eventually(t, "more writes", func() bool { return executed(primary, "tup_inserted") > mark+200 })
		if n := failed.Load(); n > 4 {
			t.Errorf("%d calls failed, 4 at most were in flight: %v", n, why.Load())
		}
		close(stop)
		all.Wait()
		rig.NoError(t, standbys[1].Restart())
	})
}
