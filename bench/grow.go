package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/bench/internal/quantile"
	"github.com/managedpg/managedpg/leak"
)

// grownPool is a pool with its connections open.
type grownPool struct {
	bytes  float64 // of the heap for an idle connection
	queued turnout // with one connection left for 1,000 goroutines
}

// grow opens a pool of n connections, and measures it.
func (s *subject) grow(n int, length time.Duration) (grownPool, error) {
	var p grownPool
	db, err := s.db()
	if err != nil {
		return p, err
	}
	defer db.Close()
	if err := use(db, 1); err != nil { // what the pool takes as such is not the connections'
		return p, err
	}
	before := heap()
	if err := use(db, n); err != nil {
		return p, err
	}
	p.bytes = (heap() - before) / float64(n-1)

	held, err := take(db, n-1)
	if err != nil {
		return p, err
	}
	crowd := crowd{workers: 1000, call: connection}
	p.queued, err = crowd.run(db, length)
	return p, errors.Join(err, giveBack(held))
}

// use executes a statement on n connections, which are idle afterwards.
func use(db *sql.DB, n int) error {
	held, err := take(db, n)
	if err != nil {
		return err
	}
	for _, c := range held {
		if _, err := c.ExecContext(context.Background(), "SELECT 1"); err != nil {
			return err
		}
	}
	return giveBack(held)
}

func take(db *sql.DB, n int) ([]*sql.Conn, error) {
	var held []*sql.Conn
	for range n {
		c, err := db.Conn(context.Background())
		if err != nil {
			return nil, errors.Join(err, giveBack(held))
		}
		held = append(held, c)
	}
	return held, nil
}

func giveBack(held []*sql.Conn) (err error) {
	for _, c := range held {
		err = errors.Join(err, c.Close())
	}
	return err
}

// heap is what is in use of it, in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what pools and finalizers held on to
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// timed is the median time of some calls, in ns.
func timed(call func()) float64 {
	var took []float64
	for range 200 {
		start := time.Now()
		call()
		took = append(took, float64(time.Since(start)))
	}
	return quantile.Median(took)
}

// leakScan is what looking for leaks among n checkouts takes, in ns.
func leakScan(n int) float64 {
	t := leak.New(leak.Options{Threshold: time.Hour, StackDepth: 16})
	for i := range n {
		s := t.Slot(uint64(i), "localhost:5432/app", 1, nil)
		s.CheckOut(context.Background(), t.Now())
		defer s.Remove()
	}
	return timed(func() { t.Scan(t.Now()) })
}

// monitorRound is what a probe of all endpoints takes beside n open connections, in ns.
func monitorRound(n int) (float64, error) {
	// A connector of one's own is probed when HealthCheck isn't just ParseDSN's default.
	db, err := managedpg.OpenDB(&managedpg.Config{PoolSize: n, HealthCheck: true, Endpoints: []driver.Connector{fake{}}})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if err := use(db, n); err != nil {
		return 0, err
	}
	pool, _ := managedpg.PoolOf(db)
	return timed(func() { pool.CheckNow(context.Background()) }), nil
}
