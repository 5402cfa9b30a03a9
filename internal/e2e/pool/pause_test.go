package pool_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// While a pool is paused nothing of it is in use, those who want a connection wait, and none of them has an error.
func TestPauseAndResume(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "base_driver="+base, "pool_size=4", "max_overflow=0"))
			pool := rig.PoolOf(t, db)
			over := make(chan struct{})
			var calls atomic.Int64
			var load sync.WaitGroup
			for range 8 {
				load.Go(func() {
					for {
						select {
						case <-over:
							return
						default:
						}
						if _, err := db.Exec("SELECT pg_sleep(0.001)"); err != nil {
							t.Error(err)
						}
						calls.Add(1)
					}
				})
			}
			for range 3 {
				rig.Eventually(t, "calls are made", func() bool { return calls.Load() > 50 })
				rig.NoError(t, pool.Pause(t.Context()))
				rig.Eventually(t, "all wait", func() bool { return pool.Stats().Waiting == 8 })
				before := calls.Load()
				if s := pool.Stats(); s.CheckedOut != 0 || s.Paused <= 0 || calls.Load() != before {
					t.Errorf("%d in use while paused for %v", s.CheckedOut, s.Paused)
				}
				pool.Resume()
				rig.Eventually(t, "calls go on", func() bool { return calls.Load() > before+50 })
			}
			close(over)
			load.Wait()
			if s := pool.Stats(); s.Paused != 0 || s.FailedCheckouts != 0 {
				t.Errorf("paused for %v, %d failed", s.Paused, s.FailedCheckouts)
			}
		})
	}
}

// Pause says who still holds a connection when its context ends, and stays in force.
func TestPauseThatHasToWait(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=2"))
	pool := rig.PoolOf(t, db)
	c, err := db.Conn(t.Context())
	rig.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := pool.Pause(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "TestPauseThatHasToWait") {
		t.Errorf("it says %v", err)
	}
	if _, err := db.ExecContext(ctx, "SELECT 1"); err == nil {
		t.Error("a call was made in a paused pool")
	}
	time.AfterFunc(20*time.Millisecond, func() { c.Close() })
	rig.NoError(t, pool.Pause(t.Context()))
	pool.Resume()
	rig.Exec(t, db, "SELECT 1")
}

func TestResize(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=4", "max_overflow=0", "pool_timeout=0"))
	pool := rig.PoolOf(t, db)
	take := func(n int) (held []*sql.Conn) {
		t.Helper()
		for range n {
			c, err := db.Conn(t.Context())
			rig.NoError(t, err)
			held = append(held, c)
		}
		return held
	}
	give := func(held []*sql.Conn) {
		for _, c := range held {
			c.Close()
		}
	}
	held := take(4)
	rig.NoError(t, pool.Resize(2, 0))
	if s := pool.Stats(); s.Size != 2 || s.MaxOverflow != 0 || s.Open != 4 {
		t.Errorf("%d + %d, %d open; those in use stay", s.Size, s.MaxOverflow, s.Open)
	}
	give(held)
	rig.Eventually(t, "two are kept", func() bool { return pool.Stats().Open == 2 })
	held = take(2)
	if _, err := db.Conn(t.Context()); err == nil {
		t.Error("a third one was lent")
	}
	rig.NoError(t, pool.Resize(3, 1))
	held = append(held, take(2)...)
	give(held)
	for _, wrong := range [][2]int{{0, 1}, {1, -2}, {10001, 0}} {
		if err := pool.Resize(wrong[0], wrong[1]); err == nil {
			t.Errorf("%v was taken", wrong)
		}
	}
	sqls := rig.Open(t, pgtest.Database(t))
	if err := rig.PoolOf(t, sqls).Resize(1, 1); err == nil || !strings.Contains(err.Error(), "pool_size") {
		t.Errorf("without pool_size: %v", err)
	}
	if err := rig.PoolOf(t, sqls).Pause(t.Context()); err == nil {
		t.Error("a pool that database/sql governs was paused")
	}
}

// What an operator does to a pool is done to the one for reads beside it too, but for its limits.
func TestOperatorsReachThePoolForReads(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "standby_reads=true", "pool_size=2", "max_overflow=0"))
	pool := rig.PoolOf(t, db)
	var reads *managedpg.Pool
	for _, p := range managedpg.Pools() {
		if p.Name() == pool.Name()+"/reads" {
			reads = p
		}
	}
	reading := managedpg.ReadOnly(t.Context())
	c, err := db.Conn(reading)
	rig.NoError(t, err)
	rig.Exec(t, c, "SELECT 1")

	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := pool.Pause(soon); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `/reads": paused, with 1 connections still in use`) {
		t.Errorf("paused while a read is under way: %v", err)
	}
	rig.NoError(t, c.Close())
	rig.NoError(t, pool.Pause(t.Context()))
	told := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(reading, "SELECT 1")
		told <- err
	}()
	rig.Eventually(t, "a read waits", func() bool { return reads.Stats().Waiting == 1 })
	pool.Resume()
	rig.NoError(t, <-told)

	if open := reads.Stats().Open; open != 1 {
		t.Errorf("%d connections for reads before Drain", open)
	}
	pool.Drain()
	rig.Eventually(t, "they are drained", func() bool { return reads.Stats().Open == 0 })

	before := reads.Health().TotalChecks
	pool.CheckNow(t.Context())
	if after := reads.Health().TotalChecks; after <= before {
		t.Errorf("%d checks by the pool for reads, %d before CheckNow", after, before)
	}
	pool.ForgetTimelines()
	rig.NoError(t, pool.Resize(3, 0))
	if s, r := pool.Stats(), reads.Stats(); s.Size != 3 || r.Size != 2 {
		t.Errorf("resized to %d, and for reads %d", s.Size, r.Size)
	}
	rig.NoError(t, reads.Resize(4, 0))
	if r := reads.Stats(); r.Size != 4 {
		t.Errorf("the pool for reads was resized to %d", r.Size)
	}
}
