package failover_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// conflicting is a standby that ends whatever its replay meets, with a table that is read there.
type conflicting struct {
	*testing.T
	base    string
	db      *sql.DB
	standby *pgtest.Cluster
	primary *pgtest.Cluster
	table   string
}

func eachConflicting(t *testing.T, test func(*conflicting)) {
	primary := pgtest.Start(t)
	standby := rig.Standby(t, primary, pgtest.Conf("max_standby_streaming_delay=0"))
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			c := &conflicting{T: t, base: base, standby: standby, primary: primary, table: "t_" + base}
			rig.NoError(t, primary.Exec("CREATE TABLE "+c.table+" AS SELECT generate_series(1, 30) AS n"))
			rig.Eventually(t, "the table is there", func() bool {
				n, err := standby.QueryString("SELECT count(*)::text FROM " + c.table)
				return err == nil && n == "30"
			})
			c.db = rig.OpenQuietly(t, rig.WithKeys(cluster(primary, standby), "base_driver="+base, "pool_size=4", "standby_reads=true",
				"health_check_interval=100ms"))
			rig.Eventually(t, "reads on the standby", func() bool { return onStandby(t, managedpg.ReadOnly(t.Context()), c.db) })
			test(c)
		})
	}
}

// sleeper reads the table, which has 30 rows, and takes its time for each.
func (c *conflicting) sleeper(perRow time.Duration) string {
	return fmt.Sprintf("SELECT count(*) FROM %s WHERE n > $1 AND pg_sleep(%f) IS NOT NULL", c.table, perRow.Seconds())
}

// sleeps waits until a sleeper runs on the standby.
func (c *conflicting) sleeps() {
	c.Helper()
	rig.Eventually(c.T, "it runs", func() bool {
		return number(c.T, c.standby, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0
	})
}

// vacuum takes a row away for good that those who read the table may still see: the standby ends what they are at, unless a snapshot on
// the primary has kept the row.
func (c *conflicting) vacuum() {
	c.Helper()
	rig.NoError(c.T, c.primary.Exec("DELETE FROM "+c.table+" WHERE n = (SELECT max(n) FROM "+c.table+")", "VACUUM "+c.table))
}

// conflict has the standby end the transaction that reads the table.
func (c *conflicting) conflict() {
	c.Helper()
	reads := func() (string, error) {
		return c.standby.QueryString("SELECT pid || ' ' || xact_start FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() " +
			"AND query LIKE '%FROM " + c.table + "%'")
	}
	which, err := reads()
	if err != nil || which == "" {
		c.Fatal("nobody reads the table", err)
	}
	rig.Eventually(c.T, "it is ended", func() bool {
		c.vacuum()
		for range 50 {
			if now, err := reads(); err == nil && now != which { // the question may be ended too
				return true
			}
		}
		return false
	})
}

// A read that a standby ends because its replay needs what the read is at is run again unseen.
func TestARecoveryConflictIsNotSeen(t *testing.T) {
	eachConflicting(t, func(c *conflicting) {
		reads := managedpg.ReadOnly(context.Background())
		done := make(chan error, 1)
		go func() {
			var n int
			var err error
			if c.base == "pgx" {
				err = c.db.QueryRowContext(reads, c.sleeper(40*time.Millisecond), 0).Scan(&n)
			} else { // lib/pq returns the rows before the server is at the first
				_, err = c.db.ExecContext(reads, c.sleeper(40*time.Millisecond), 0)
			}
			done <- err
		}()
		c.sleeps()
		c.conflict()
		if err := <-done; err != nil {
			c.Errorf("%v", err)
		}
	})
}

// One that has returned something already is told of it.
func TestARecoveryConflictAmidRowsIsSeen(t *testing.T) {
	eachConflicting(t, func(c *conflicting) {
		// Far more rows than the sockets hold: the server is still at them.
		rows, err := c.db.QueryContext(managedpg.ReadOnly(context.Background()),
			"SELECT a.n, repeat('x', 1000) FROM "+c.table+" a, generate_series(1, 3000)")
		rig.NoError(c.T, err)
		defer rows.Close()
		if !rows.Next() {
			c.Fatal(rows.Err())
		}
		for range 3 {
			c.vacuum()
		}
		for rows.Next() {
		}
		if rig.SQLState(rows.Err()) != "40001" {
			c.Errorf("got %v, want 40001", rows.Err())
		}
	})
}

// In InTx with Retries its function is run again: after a statement that was ended, and after a session that was, while nothing ran in it.
func TestARecoveryConflictInInTx(t *testing.T) {
	repeatable := sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead}
	eachConflicting(t, func(c *conflicting) {
		for _, at := range []string{"in a statement", "between two"} {
			var runs atomic.Int64
			read := func(ctx context.Context, tx *sql.Tx) error {
				var n int
				first := runs.Add(1) == 1
				if at == "in a statement" {
					perRow := time.Millisecond
					if first {
						perRow *= 200
					}
					return tx.QueryRowContext(ctx, c.sleeper(perRow), 0).Scan(&n)
				}
				err := tx.QueryRowContext(ctx, "SELECT count(*) FROM "+c.table).Scan(&n)
				if err == nil && first {
					c.conflict()
				}
				if err == nil {
					err = tx.QueryRowContext(ctx, "SELECT count(*) FROM "+c.table).Scan(&n)
				}
				return err
			}
			for _, retries := range []int{3, 0} {
				runs.Store(0)
				inTx := func() error {
					return managedpg.InTx(context.Background(), c.db, &managedpg.TxOptions{TxOptions: repeatable, Retries: retries}, read)
				}
				var err error
				if at == "in a statement" {
					done := make(chan error, 1)
					go func() { done <- inTx() }()
					c.sleeps()
					c.conflict()
					err = <-done
				} else {
					err = inTx()
				}
				if retries > 0 && (err != nil || runs.Load() < 2) || retries == 0 && (err == nil || runs.Load() != 1) {
					c.Errorf("%s, with %d retries: %d runs, %v", at, retries, runs.Load(), err)
				}
			}
		}
	})
}
