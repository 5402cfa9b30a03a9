package main

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg/bench/internal/quantile"
)

// crowd is goroutines that each make one call after the other.
type crowd struct {
	workers int
	think   time.Duration // between two calls of one
	call    call
}

// call uses a connection and says how long it waited.
type call func(ctx context.Context, db *sql.DB) (wait time.Duration, err error)

// answer waits for the answer to a statement.
func answer(ctx context.Context, db *sql.DB) (time.Duration, error) {
	start := wall()
	_, err := db.ExecContext(ctx, "SELECT 1")
	return wall() - start, err
}

// connection waits for a connection, and executes a statement on it.
func connection(ctx context.Context, db *sql.DB) (time.Duration, error) {
	start := wall()
	c, err := db.Conn(ctx)
	if err != nil {
		return 0, err
	}
	wait := wall() - start
	_, err = c.ExecContext(ctx, "SELECT 1")
	return wait, errors.Join(err, c.Close())
}

// turnout is what a crowd got done.
type turnout struct {
	perSecond            float64
	median, p99, longest float64 // of the waits, in ns
}

// run lets the crowd call for a time, or until one of it meets an error.
func (c *crowd) run(db *sql.DB, length time.Duration) (turnout, error) {
	waits := make([][]float64, c.workers)
	errs := make([]error, c.workers)
	var all sync.WaitGroup
	start := wall()
	for w := range c.workers {
		all.Go(func() { waits[w], errs[w] = c.work(db, start+length) })
	}
	all.Wait()
	took := wall() - start
	return summarizeWaits(slices.Concat(waits...), took), errors.Join(errs...)
}

func (c *crowd) work(db *sql.DB, end time.Duration) (waits []float64, err error) {
	for wall() < end {
		wait, err := c.call(context.Background(), db)
		if err != nil {
			return waits, err
		}
		waits = append(waits, float64(wait))
		if c.think > 0 {
			time.Sleep(c.think)
		}
	}
	return waits, nil
}

func summarizeWaits(waits []float64, took time.Duration) turnout {
	slices.Sort(waits)
	return turnout{
		perSecond: float64(len(waits)) / took.Seconds(),
		median:    quantile.Of(waits, 0.5),
		p99:       quantile.Of(waits, 0.99),
		longest:   quantile.Of(waits, 1),
	}
}
