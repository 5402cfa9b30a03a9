package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg"
)

const (
	workers  = 8
	think    = 2 * time.Millisecond // between two calls of a worker
	deadline = 2 * time.Second      // of each call
	warmUp   = 300 * time.Millisecond
)

// attempt is a call that a worker made: an INSERT of an id of its own.
type attempt struct {
	id         int64
	start, end time.Time
	err        error
}

func (a attempt) took() time.Duration { return a.end.Sub(a.start) }

// load is workers that call for as long as it runs.
type load struct {
	db      *sql.DB
	lastID  atomic.Int64
	stop    chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	attempts []attempt
}

func startLoad(db *sql.DB) *load {
	l := &load{db: db, stop: make(chan struct{})}
	for range workers {
		l.running.Go(l.work)
	}
	return l
}

func (l *load) work() {
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(think):
		}
		a := attempt{id: l.lastID.Add(1), start: time.Now()}
		a.err = l.insert(a.id)
		a.end = time.Now()
		l.mu.Lock()
		l.attempts = append(l.attempts, a)
		l.mu.Unlock()
	}
}

// insert sends every other id as an argument, and the rest in the text, which drivers send in another way.
func (l *load) insert(id int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if id%2 == 0 {
		_, err := l.db.ExecContext(ctx, "INSERT INTO calls (id, port) VALUES ($1, current_setting('port')::int)", id)
		return err
	}
	_, err := l.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO calls (id, port) VALUES (%d, current_setting('port')::int)", id))
	return err
}

// settle returns when the load has run for a while, as a program has before its server dies.
func (l *load) settle() error {
	for end := time.Now().Add(30 * time.Second); l.calls() < 20*workers; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("the load doesn't get going")
		}
	}
	if pool, ok := managedpg.PoolOf(l.db); ok {
		pool.CheckNow(context.Background()) // by then it has probed twice, and knows how long an answer takes
	}
	time.Sleep(warmUp)
	return nil
}

func (l *load) calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.attempts)
}

// finish waits for the workers, once stop is closed, and gives the calls in the order in which they ended.
func (l *load) finish() []attempt {
	l.running.Wait()
	slices.SortFunc(l.attempts, func(a, b attempt) int { return a.end.Compare(b.end) })
	return l.attempts
}
