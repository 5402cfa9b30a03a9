package main

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
)

const (
	workers = 8
	think   = 2 * time.Millisecond // between two calls of a worker
	// tolerated is what a later call may take longer than usual.
	tolerated = 50 * time.Millisecond
)

// call is one that a worker made.
type call struct {
	worker     int
	id         int64
	start, end time.Time
	err        error
}

func (c call) took() time.Duration { return c.end.Sub(c.start) }

// during says whether the call was in progress at some moment between two times.
func (c call) during(from, to time.Time) bool { return c.start.Before(to) && c.end.After(from) }

// load is workers that call for as long as it runs.
type load struct {
	db       *sql.DB
	deadline time.Duration // of each call; 0: none
	lastID   atomic.Int64
	stop     chan struct{}
	running  sync.WaitGroup

	mu    sync.Mutex
	calls []call
}

func startLoad(db *sql.DB, deadline time.Duration) *load {
	l := &load{db: db, deadline: deadline, stop: make(chan struct{})}
	for w := range workers {
		l.running.Go(func() { l.work(w) })
	}
	return l
}

func (l *load) work(worker int) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		c := call{worker: worker, id: l.lastID.Add(1), start: time.Now()}
		c.err = l.call(c.id)
		c.end = time.Now()
		l.mu.Lock()
		l.calls = append(l.calls, c)
		l.mu.Unlock()
		time.Sleep(think)
	}
}

func (l *load) call(id int64) error {
	ctx := context.Background()
	if l.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.deadline)
		defer cancel()
	}
	_, err := l.db.ExecContext(ctx, "INSERT INTO calls (id, port) VALUES ($1, current_setting('port')::int)", id)
	return err
}

// settle returns when every worker has called some twenty times, and a moment later, whatever the machine is busy with.
func (l *load) settle() error {
	end := time.Now().Add(30 * time.Second)
	for {
		var calls [workers]int
		least := 1 << 30
		l.mu.Lock()
		for _, c := range l.calls {
			calls[c.worker]++
		}
		l.mu.Unlock()
		for _, n := range calls {
			least = min(least, n)
		}
		if least >= 20 {
			// A pool knows after its second probe how long an answer takes; the first had to connect.
			pool, _ := managedpg.PoolOf(l.db)
			pool.CheckNow(context.Background())
			time.Sleep(warmUp)
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the load doesn't get going")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// finish ends the load and gives the calls in the order in which they ended.
func (l *load) finish() []call {
	close(l.stop)
	l.running.Wait()
	slices.SortFunc(l.calls, func(a, b call) int { return a.end.Compare(b.end) })
	return l.calls
}

// unsure says that the application was told that the call ran or did not.
func unsure(err error) bool { return errors.Is(err, managedpg.ErrOutcomeUnknown) }

// told is for whoever wants to know how an error reads.
func told(err error) string {
	var lost *conn.LostError
	if errors.As(err, &lost) {
		return lost.Error()
	}
	return err.Error()
}
