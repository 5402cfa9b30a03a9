package main

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"time"
)

// subject is a way to reach a database.
type subject struct {
	name   string
	open   func() (*sql.DB, error) // a new one each time
	limits limits
}

// limits are what a program sets on its sql.DB; 0 leaves it as it comes.
type limits struct{ open, idle int }

// sized are limits as large as pool_size of the subjects that the driver governs.
var sized = limits{idle: poolSize}

func (s *subject) db() (*sql.DB, error) {
	db, err := s.open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if s.limits.open > 0 {
		db.SetMaxOpenConns(s.limits.open)
	}
	if s.limits.idle > 0 {
		db.SetMaxIdleConns(s.limits.idle)
	}
	return db, nil
}

// workload is something to do with a sql.DB. Its start gives the call to be measured, and what is to be closed after it.
type workload struct {
	name    string
	further int // calls that database/sql makes of the driver in a checkout, but for the first: of arguments, BeginTx and Commit
	start   func(ctx context.Context, db *sql.DB) (call func() error, stop func() error, err error)
}

// bench is a subject with a workload on it.
type bench struct {
	db   *sql.DB
	call func() error
	stop func() error
	now  clock
}

// clock tells the time since some moment.
type clock func() time.Duration

var started = time.Now()

// wall is what a user waits.
func wall() time.Duration { return time.Since(started) }

func (s *subject) bench(w *workload, now clock) (*bench, error) {
	db, err := s.db()
	if err != nil {
		return nil, err
	}
	call, stop, err := w.start(context.Background(), db)
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %s: %w", w.name, s.name, err)
	}
	return &bench{db, call, stop, now}, nil
}

func (b *bench) close() error {
	if b.stop != nil {
		if err := b.stop(); err != nil {
			return err
		}
	}
	return b.db.Close()
}

// block runs n calls, one after the other, and tells the time of one in ns.
func (b *bench) block(n int) (float64, error) {
	start := b.now()
	for range n {
		if err := b.call(); err != nil {
			return 0, err
		}
	}
	return float64(b.now()-start) / float64(n), nil
}

// allocations are those of a call. The heap is settled before, and the least of a few tries taken: others allocate too.
func (b *bench) allocations(n int) (float64, error) {
	least := 0.0
	for try := range 3 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		if _, err := b.block(n); err != nil {
			return 0, err
		}
		runtime.ReadMemStats(&after)
		if got := float64(after.Mallocs-before.Mallocs) / float64(n); try == 0 || got < least {
			least = got
		}
	}
	return least, nil
}

// takePairs runs a block of each, in random order, as long as more says so.
func takePairs(base, subject func(n int) (float64, error), n int, more func(done int) bool) ([]pair, error) {
	var pairs []pair
	for more(len(pairs)) {
		var p pair
		var err error
		if rand.N(2) == 0 {
			if p.base, err = base(n); err == nil {
				p.subject, err = subject(n)
			}
		} else {
			if p.subject, err = subject(n); err == nil {
				p.base, err = base(n)
			}
		}
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// effort is how long a comparison may take, and into how many rounds it is cut. Each round opens both subjects anew, so
// that a backend or a memory layout that happens to be slow doesn't count as the subject's.
type effort struct {
	now    clock
	rounds int
	each   time.Duration // a round's
	block  time.Duration // a block's, roughly
	count  int           // calls over which allocations are counted
}

// result is a comparison measured.
type result struct {
	summary
	baseAllocs, allocs float64
}

// compare measures a subject beside another one.
func compare(base, sub *subject, w *workload, e effort) (result, error) {
	var rounds [][]pair
	var r result
	for round := range e.rounds {
		err := func() error {
			a, err := base.bench(w, e.now)
			if err != nil {
				return err
			}
			defer a.close()
			b, err := sub.bench(w, e.now)
			if err != nil {
				return err
			}
			defer b.close()
			n, err := calibrate(a, b, e.block)
			if err != nil {
				return err
			}
			if round == 0 {
				if r.baseAllocs, err = a.allocations(e.count); err != nil {
					return err
				}
				if r.allocs, err = b.allocations(e.count); err != nil {
					return err
				}
			}
			end := time.Now().Add(e.each)
			taken, err := takePairs(a.block, b.block, n, func(done int) bool { return done < 3 || time.Now().Before(end) })
			rounds = append(rounds, taken)
			return err
		}()
		if err != nil {
			return r, fmt.Errorf("%s: %s against %s: %w", w.name, sub.name, base.name, err)
		}
	}
	r.summary = summarize(rounds)
	return r, nil
}

// calibrate warms both up, and finds the number of calls that take about as long as a block should. It goes by the quickest of a few
// blocks: the first call opens a connection, and any may be kept waiting.
func calibrate(a, b *bench, block time.Duration) (int, error) {
	n := 1
	for {
		ns := math.Inf(1)
		for range 3 {
			took, err := a.block(n)
			if err != nil {
				return 0, err
			}
			ns = min(ns, took)
			if _, err := b.block(n); err != nil {
				return 0, err
			}
		}
		if took := time.Duration(ns * float64(n)); took >= block/2 {
			return max(1, int(float64(block)/ns)), nil
		}
		n *= 2
	}
}
