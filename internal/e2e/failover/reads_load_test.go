package failover_test

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// number is a server's answer.
func number(t *testing.T, c *pgtest.Cluster, query string) int {
	t.Helper()
	text, err := c.QueryString(query)
	rig.NoError(t, err)
	n, err := strconv.Atoi(text)
	rig.NoError(t, err)
	return n
}

// What each server has counted by itself (pg_stat_database) says that every marked read ran on a standby, and every other statement on
// the primary.
func TestServersCountTheReads(t *testing.T) {
	const (
		rows   = 20000 // that a read reads, far more than what servers read in their catalogs meanwhile
		marked = 60
		plain  = 40
		writes = 50
	)
	primary, standbys := readsOnStandbys(t)
	servers := append([]*pgtest.Cluster{primary}, standbys...)
	rig.NoError(t, primary.Exec("CREATE DATABASE shop"))
	setup := rig.OpenWith(t, "pgx", primary.DSNFor("shop"))
	rig.Exec(t, setup, "CREATE TABLE stock(n int) WITH (autovacuum_enabled=false)")
	rig.Exec(t, setup, fmt.Sprintf("INSERT INTO stock SELECT generate_series(1, %d)", rows))
	rig.Exec(t, setup, "CREATE TABLE sold(n int) WITH (autovacuum_enabled=false)")
	rig.NoError(t, setup.Close())
	for _, s := range standbys {
		there := rig.OpenWith(t, "pgx", s.DSNFor("shop"))
		rig.Eventually(t, "the tables are there", func() bool {
			var n int
			err := there.QueryRow("SELECT count(*) FROM pg_class WHERE relname = 'sold'").Scan(&n)
			return err == nil && n == 1
		})
		rig.NoError(t, there.Close())
	}
	// counted is read once nobody has a session there, since a session tells its counts at its end.
	counted := func(s *pgtest.Cluster) (read, written int) {
		t.Helper()
		const of = " FROM pg_stat_database WHERE datname = 'shop'"
		rig.Eventually(t, "all sessions have ended", func() bool { return number(t, s, "SELECT numbackends"+of) == 0 })
		return number(t, s, "SELECT tup_returned"+of), number(t, s, "SELECT tup_inserted"+of)
	}
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			var readBefore, writtenBefore [3]int
			for i, s := range servers {
				readBefore[i], writtenBefore[i] = counted(s)
			}
			dsn := rig.WithKeys(cluster(servers...), "dbname=shop", "base_driver="+base, "pool_size=4", "standby_reads=true")
			db := rig.OpenQuietly(t, dsn)
			ctx := context.Background()
			rig.Eventually(t, "the standbys are known", func() bool { return onStandby(t, managedpg.ReadOnly(ctx), db) })
			var all sync.WaitGroup
			each := func(n int, call func(context.Context) error, ctx context.Context) {
				all.Go(func() {
					for range n {
						if err := call(ctx); err != nil {
							t.Error(err)
						}
					}
				})
			}
			read := func(ctx context.Context) error {
				var n int
				return db.QueryRowContext(ctx, "SELECT count(*) FROM stock").Scan(&n)
			}
			inTx := func(ctx context.Context) error {
				return managedpg.InTx(ctx, db, &managedpg.TxOptions{TxOptions: sql.TxOptions{ReadOnly: true}}, func(ctx context.Context, tx *sql.Tx) error {
					var n int
					return tx.QueryRowContext(ctx, "SELECT count(*) FROM stock").Scan(&n)
				})
			}
			write := func(ctx context.Context) error {
				_, err := db.ExecContext(ctx, "INSERT INTO sold VALUES (1)")
				return err
			}
			each(marked/3, read, managedpg.ReadOnly(ctx))
			each(marked/3, read, managedpg.ReadOnly(ctx))
			each(marked/3, inTx, ctx)
			each(plain/2, read, ctx)
			each(plain/2, read, ctx)
			each(writes, write, ctx)
			all.Wait()
			rig.NoError(t, db.Close())

			var reads, inserts [3]int
			for i, s := range servers {
				r, w := counted(s)
				reads[i], inserts[i] = (r-readBefore[i])/rows, w-writtenBefore[i]
			}
			t.Logf("reads %v, writes %v, on the primary and its standbys", reads, inserts)
			if reads[0] != plain || reads[1]+reads[2] != marked || reads[1] == 0 || reads[2] == 0 {
				t.Errorf("reads %v, want %d on the primary and %d on the standbys", reads, plain, marked)
			}
			if inserts != [3]int{writes, 0, 0} {
				t.Errorf("writes %v, want %d, all on the primary", inserts, writes)
			}
		})
	}
}

// markedReaders read on one sql.DB, whose writers write.
type markedReaders struct {
	onStandbys, onPrimary, failedReads, writes, failedWrites atomic.Int64
	why                                                      atomic.Value
	stop                                                     chan struct{}
	all                                                      sync.WaitGroup
}

const (
	readingAtOnce = 8
	readsAsk      = "SELECT pg_is_in_recovery() FROM pg_sleep(0.002)"
)

func readAndWrite(t *testing.T, db *sql.DB) *markedReaders {
	m := &markedReaders{stop: make(chan struct{})}
	repeat := func(call func() error, failed *atomic.Int64) {
		m.all.Go(func() {
			for {
				select {
				case <-m.stop:
					return
				default:
				}
				if err := call(); err != nil {
					failed.Add(1)
					m.why.Store(err.Error())
				}
			}
		})
	}
	reads := managedpg.ReadOnly(context.Background())
	for range readingAtOnce {
		repeat(func() error {
			var standby bool
			err := db.QueryRowContext(reads, readsAsk).Scan(&standby)
			switch {
			case err != nil:
			case standby:
				m.onStandbys.Add(1)
			default:
				m.onPrimary.Add(1)
			}
			return err
		}, &m.failedReads)
	}
	for range 4 {
		repeat(func() error {
			_, err := db.ExecContext(context.Background(), "INSERT INTO notes VALUES (1)")
			if err == nil {
				m.writes.Add(1)
			}
			return err
		}, &m.failedWrites)
	}
	t.Cleanup(m.end)
	return m
}

func (m *markedReaders) end() {
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	m.all.Wait()
}

// counts waits until so much more was counted.
func counts(t *testing.T, what string, n *atomic.Int64, more int64) {
	t.Helper()
	from := n.Load()
	rig.Eventually(t, what, func() bool { return n.Load() > from+more })
}

// failed wants no more errors than that since the last time.
func (m *markedReaders) failed(t *testing.T, when string, reads, writes int64) {
	t.Helper()
	if n := m.failedReads.Swap(0); n > reads {
		t.Errorf("%s: %d reads failed, at most %d were in flight: %v", when, n, reads, m.why.Load())
	}
	if n := m.failedWrites.Swap(0); n > writes {
		t.Errorf("%s: %d writes failed, at most %d were in flight: %v", when, n, writes, m.why.Load())
	}
}

func readersOn(t *testing.T, s *pgtest.Cluster) int {
	t.Helper()
	return number(t, s, "SELECT count(*) FROM pg_stat_activity WHERE query = '"+readsAsk+"'")
}

// One standby after the other is killed: reads go to those that are left, and in the end to the primary. None fails but what was in
// flight on the one that was killed, and no write does.
func TestAllStandbysDie(t *testing.T) {
	primary, standbys := readsOnStandbys(t)
	eachBaseReading(t, append([]*pgtest.Cluster{primary}, standbys...), func(t *testing.T, db *sql.DB) {
		m := readAndWrite(t, db)
		counts(t, "reads on the standbys", &m.onStandbys, 200)
		m.failed(t, "at first", 0, 0)
		for i, s := range standbys {
			inFlight := int64(readersOn(t, s))
			if inFlight == 0 {
				t.Errorf("nobody reads on standby %d", i)
			}
			rig.NoError(t, s.Kill())
			if i == 0 {
				counts(t, "reads on the other", &m.onStandbys, 200)
			} else {
				counts(t, "reads on the primary", &m.onPrimary, 200)
			}
			m.failed(t, fmt.Sprintf("after %d were killed", i+1), inFlight, 0)
		}
		counts(t, "more of them", &m.onPrimary, 200)
		counts(t, "writes", &m.writes, 100)
		m.failed(t, "with all standbys dead", 0, 0)
		for _, s := range standbys {
			rig.NoError(t, s.Restart())
		}
		counts(t, "reads on the standbys again", &m.onStandbys, 200)
		m.failed(t, "when they are back", 0, 0)
		m.end()
	})
}

// The primary dies and a standby is promoted. Reads go on, also on the connections to the promoted one that are in use, and these still
// let nobody write.
func TestAStandbyIsPromotedUnderReads(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			primary, standbys := readsOnStandbys(t)
			servers := append([]*pgtest.Cluster{primary}, standbys...)
			db := rig.OpenQuietly(t, rig.WithKeys(cluster(servers...), "base_driver="+base, "pool_size=12", "standby_reads=true",
				"health_check_interval=100ms"))
			ctx := context.Background()
			m := readAndWrite(t, db)
			counts(t, "reads on the standbys", &m.onStandbys, 200)

			// A connection in use on each standby.
			held := make(map[int]*sql.Conn)
			rig.Eventually(t, "a connection to each standby", func() bool {
				c, err := db.Conn(managedpg.ReadOnly(ctx))
				rig.NoError(t, err)
				port := rig.Value[int](t, c, "SELECT inet_server_port()")
				if held[port] != nil || port == primary.Port() {
					rig.NoError(t, c.Close())
				} else {
					held[port] = c
				}
				return len(held) == len(standbys)
			})
			m.failed(t, "at first", 0, 0)
			rig.NoError(t, primary.Kill())
			rig.NoError(t, standbys[0].Promote())
			rig.Eventually(t, "writes on the promoted one", func() bool {
				_, err := db.ExecContext(ctx, "INSERT INTO notes VALUES (2)")
				return err == nil
			})
			counts(t, "writes", &m.writes, 200)
			counts(t, "reads on the other standby", &m.onStandbys, 200)
			m.failed(t, "when the primary died", 0, 4) // as many as write at once

			for _, c := range held {
				onPromoted := !rig.Value[bool](t, c, "SELECT pg_is_in_recovery()")
				if port := rig.Value[int](t, c, "SELECT inet_server_port()"); onPromoted != (port == standbys[0].Port()) {
					t.Errorf("a connection in use leads to %d, promoted: %v", port, onPromoted)
				}
				for range 2 {
					_, err := c.ExecContext(ctx, "INSERT INTO notes VALUES (3)")
					if rig.SQLState(err) != "25006" {
						t.Errorf("a write in a session for reads, on the promoted one: %v: %v", onPromoted, err)
					}
				}
				tx, err := c.BeginTx(ctx, nil)
				rig.NoError(t, err)
				if _, err = tx.ExecContext(ctx, "INSERT INTO notes VALUES (3)"); rig.SQLState(err) != "25006" {
					t.Errorf("a write in a transaction for reads, on the promoted one: %v: %v", onPromoted, err)
				}
				rig.NoError(t, tx.Rollback())
				rig.NoError(t, c.Close())
			}
			// Nobody is left on the promoted one but who writes.
			rig.Eventually(t, "the reads have left it", func() bool { return readersOn(t, standbys[0]) == 0 })
			at := m.onPrimary.Load()
			counts(t, "reads on the other standby", &m.onStandbys, 200)
			if n := m.onPrimary.Load() - at; n > 0 {
				t.Errorf("%d more reads on the promoted one", n)
			}
			m.failed(t, "after that", 0, 0)
			m.end()
		})
	}
}
