package failover_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Losing a server costs the statements in flight, and no others. Every scenario runs through all four combinations at once:
// one fault, four pools under load. make failover measures the same, one at a time.

// loadWorkers is how many goroutines call through each pool.
const loadWorkers = 3

// loadedPool is a pool whose workers insert ids for as long as the test lets them, and remember what they were told.
type loadedPool struct {
	t        *testing.T
	name     string
	db       *sql.DB
	pool     *managedpg.Pool
	deadline time.Duration
	stop     chan struct{}
	running  sync.WaitGroup

	mu    sync.Mutex
	calls []loadCall
}

type loadCall struct {
	worker     int
	id         int
	start, end time.Time
	err        error
}

// underLoad opens a pool for each combination over two servers, and sets workers on it.
func underLoad(t *testing.T, first, second *pgtest.Cluster, deadline time.Duration, keys ...string) []*loadedPool {
	t.Helper()
	var all []*loadedPool
	for _, c := range rig.Combinations {
		all = append(all, startLoad(t, fmt.Sprintf("%v, deadline %v", c, deadline), deadline, c.DSN(first.DSN(), append(keys, to(second))...)))
	}
	for _, l := range all {
		rig.Eventually(t, l.name+" gets going", func() bool { return l.leastCalls() >= 5 })
		l.pool.CheckNow(t.Context())
	}
	return all
}

// to names the server that backs up the first.
func to(c *pgtest.Cluster) string { return "failover_urls=" + url.QueryEscape(c.DSN()) }

func startLoad(t *testing.T, name string, deadline time.Duration, dsn string) *loadedPool {
	t.Helper()
	db := rig.OpenQuietly(t, dsn)
	db.SetMaxIdleConns(loadWorkers)
	rig.Warm(t, db, loadWorkers)
	l := &loadedPool{t: t, name: name, db: db, pool: rig.PoolOf(t, db), deadline: deadline, stop: make(chan struct{})}
	for w := range loadWorkers {
		l.running.Go(func() { l.work(w) })
	}
	return l
}

func (l *loadedPool) work(worker int) {
	for id := worker; ; id += loadWorkers {
		select {
		case <-l.stop:
			return
		default:
		}
		ctx, cancel := context.Background(), func() {}
		if l.deadline > 0 {
			ctx, cancel = context.WithTimeout(ctx, l.deadline)
		}
		c := loadCall{worker: worker, id: id, start: time.Now()}
		_, c.err = l.db.ExecContext(ctx, "INSERT INTO calls (pool, id, port) VALUES ($1, $2, current_setting('port')::int)", l.name, id)
		c.end = time.Now()
		cancel()
		l.mu.Lock()
		l.calls = append(l.calls, c)
		l.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

// leastCalls is how many calls the worker with the fewest has had answered.
func (l *loadedPool) leastCalls() int { return l.leastSince(time.Time{}) }

func (l *loadedPool) leastSince(at time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n [loadWorkers]int
	for _, c := range l.calls {
		if c.err == nil && c.start.After(at) {
			n[c.worker]++
		}
	}
	least := n[0]
	for _, m := range n {
		least = min(least, m)
	}
	return least
}

func (l *loadedPool) finish() {
	close(l.stop)
	l.running.Wait()
}

// errorsBetween are the errors of calls that ended between two times.
func (l *loadedPool) errorsBetween(from, to time.Time) (all []error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if c.err != nil && c.end.After(from) && c.end.Before(to) {
			all = append(all, c.err)
		}
	}
	return all
}

// onlyWhatWasInFlight checks that a fault cost no more than the statements that were in flight, and that the calls before it
// had no error.
func (l *loadedPool) onlyWhatWasInFlight(fault time.Time) {
	l.t.Helper()
	if before := l.errorsBetween(time.Time{}, fault); len(before) > 0 {
		l.t.Errorf("%s: errors before the fault: %v", l.name, before)
	}
	l.atMostOneEachSince(fault)
}

// atMostOneEachSince is onlyWhatWasInFlight for a fault that isn't the first one. What is counted is a call for each
// connection, and there are as many as workers. One worker may have several of them: a server's processes die one after the
// other, and the connection that it goes on with may be the next one to go.
func (l *loadedPool) atMostOneEachSince(fault time.Time) {
	l.t.Helper()
	errs := l.errorsBetween(fault, time.Now())
	if len(errs) > loadWorkers {
		l.t.Errorf("%s: %d connections had %d errors: %v", l.name, loadWorkers, len(errs), errs)
	}
	for _, err := range errs {
		if !errors.Is(err, managedpg.ErrOutcomeUnknown) {
			l.t.Errorf("%s: %v", l.name, err)
		}
	}
}

// goesOn waits until every worker has had some calls answered since, and says how long that took.
func goesOn(t *testing.T, all []*loadedPool) time.Duration {
	t.Helper()
	at := time.Now()
	for _, l := range all {
		rig.Eventually(t, l.name+" goes on", func() bool { return l.leastSince(at) >= 3 })
	}
	return time.Since(at)
}

// rows counts the rows of each call. Servers of one system hold each other's rows.
func rows(t *testing.T, sameSystem bool, servers ...*pgtest.Cluster) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, c := range servers {
		list, err := c.QueryString("SELECT string_agg(pool || '#' || id || '=' || n, ';') FROM (SELECT pool, id, count(*) n FROM calls GROUP BY 1, 2) t")
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range strings.Split(list, ";") {
			key, count, ok := strings.Cut(entry, "=")
			n := 0
			if _, err := fmt.Sscan(count, &n); ok && err != nil {
				t.Fatal(err, entry)
			}
			if sameSystem {
				all[key] = max(all[key], n)
			} else {
				all[key] += n
			}
		}
	}
	return all
}

// nothingLostOrDoubled holds what the calls were told against the rows. The load must have finished.
func nothingLostOrDoubled(t *testing.T, all []*loadedPool, rows map[string]int) {
	t.Helper()
	for _, l := range all {
		for _, c := range l.calls {
			switch n := rows[fmt.Sprintf("%s#%d", l.name, c.id)]; {
			case n > 1:
				t.Errorf("%s: call %d is there %d times; told %v", l.name, c.id, n, c.err)
			case n == 0 && c.err == nil:
				t.Errorf("%s: call %d is lost", l.name, c.id)
			case n == 1 && c.err != nil && !errors.Is(c.err, managedpg.ErrOutcomeUnknown):
				t.Errorf("%s: call %d is there; told %v", l.name, c.id, c.err)
			}
		}
	}
}

func createCalls(t *testing.T, servers ...*pgtest.Cluster) {
	t.Helper()
	for _, c := range servers {
		rig.NoError(t, c.Exec("DROP TABLE IF EXISTS calls", "CREATE TABLE calls (pool text, id int, port int)"))
	}
}

// probed waits until each pool has looked so often at its first endpoint.
func probed(t *testing.T, all []*loadedPool, times int64) {
	t.Helper()
	for _, l := range all {
		checks := func() int64 { return l.pool.Health().Endpoints[0].TotalChecks }
		enough := checks() + times
		rig.Eventually(t, l.name+" looks", func() bool { return checks() >= enough })
	}
}
