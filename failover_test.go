package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
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
	for _, c := range combinations {
		all = append(all, startLoad(t, fmt.Sprintf("%v, deadline %v", c, deadline), deadline, c.dsn(first.DSN(), append(keys, to(second))...)))
	}
	for _, l := range all {
		eventually(t, l.name+" gets going", func() bool { return l.leastCalls() >= 5 })
		l.pool.CheckNow(t.Context())
	}
	return all
}

// to names the server that backs up the first.
func to(c *pgtest.Cluster) string { return "failover_urls=" + url.QueryEscape(c.DSN()) }

func startLoad(t *testing.T, name string, deadline time.Duration, dsn string) *loadedPool {
	t.Helper()
	db := quietly(t, dsn)
	db.SetMaxIdleConns(loadWorkers)
	warm(t, db, loadWorkers)
	l := &loadedPool{t: t, name: name, db: db, pool: poolOf(t, db), deadline: deadline, stop: make(chan struct{})}
	for w := range loadWorkers {
		l.running.Go(func() { l.work(w) })
	}
	return l
}

// quietly opens a pool that logs nothing: these tests are about nothing but outages.
func quietly(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	cfg, err := managedpg.ParseDSN(dsn)
	do(t, err)
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := managedpg.OpenDB(cfg)
	do(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
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

// errorsBetween are the errors of calls that ended between two times, and the most that one worker had.
func (l *loadedPool) errorsBetween(from, to time.Time) (all []error, perWorker int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n [loadWorkers]int
	for _, c := range l.calls {
		if c.err != nil && c.end.After(from) && c.end.Before(to) {
			all = append(all, c.err)
			n[c.worker]++
			perWorker = max(perWorker, n[c.worker])
		}
	}
	return all, perWorker
}

// atMostOnePerWorker checks that a fault cost each worker no more than the statement that it had in flight, and that the
// errors say what became of that.
func (l *loadedPool) atMostOnePerWorker(fault time.Time) {
	l.t.Helper()
	if before, _ := l.errorsBetween(time.Time{}, fault); len(before) > 0 {
		l.t.Errorf("%s: errors before the fault: %v", l.name, before)
	}
	errs, perWorker := l.errorsBetween(fault, time.Now())
	if perWorker > 1 {
		l.t.Errorf("%s: a worker had %d errors: %v", l.name, perWorker, errs)
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
		eventually(t, l.name+" goes on", func() bool { return l.leastSince(at) >= 3 })
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
		do(t, c.Exec("DROP TABLE IF EXISTS calls", "CREATE TABLE calls (pool text, id int, port int)"))
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func standby(t *testing.T, of *pgtest.Cluster, opts ...pgtest.Option) *pgtest.Cluster {
	t.Helper()
	s, err := of.Standby(opts...)
	do(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// The primary is killed and its standby promoted. Then the old primary comes back: as it was, which makes two writers; as
// a standby; and promoted again by its operator.
func TestFailoverToAPromotedStandbyAndBack(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t)
	b := standby(t, a)
	createCalls(t, a)
	// What a has acknowledged is on b. (b, made before, waits for nobody when it is promoted.)
	do(t, a.Exec("ALTER SYSTEM SET synchronous_standby_names = '"+b.Name()+"'", "SELECT pg_reload_conf()"))
	all := underLoad(t, a, b, 0, "health_check_interval=200ms", "failback_after=3")

	fault := time.Now()
	do(t, a.Kill())
	do(t, b.Promote())
	t.Logf("every worker went on within %v of the promotion", goesOn(t, all))
	for _, l := range all {
		l.atMostOnePerWorker(fault)
		if s := l.pool.Failover(); s.FailoverCount != 1 || s.FailbackCount != 0 || s.IsPrimary {
			t.Errorf("%s: %+v", l.name, s)
		}
	}
	steady := time.Now()
	noErrorsSince := func(when string) {
		t.Helper()
		for _, l := range all {
			if errs, _ := l.errorsBetween(steady, time.Now()); len(errs) > 0 {
				t.Errorf("%s: %s: %d errors: %v", l.name, when, len(errs), errs[0])
			}
		}
	}

	do(t, a.Restart())
	// A write that reached it would not come back before its standby has it.
	do(t, a.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"))
	start, err := a.QueryString("SELECT count(*) FROM calls")
	do(t, err)
	probed(t, all, 5)
	goesOn(t, all)
	if end, err := a.QueryString("SELECT count(*) FROM calls"); err != nil || end != start {
		t.Errorf("the old primary had %s rows when it came back, and has %s now; %v", start, end, err)
	}
	noErrorsSince("a second writer")
	for _, l := range all {
		// A pool whose every probe of it came too late to see it as it was has nothing to fence.
		if h := l.pool.Health().Endpoints[0]; !h.Fenced || h.State != failover.Up {
			t.Errorf("%s: the old primary is %+v", l.name, h)
		}
	}

	do(t, a.RejoinAsStandby(b))
	probed(t, all, 5)
	goesOn(t, all)
	noErrorsSince("a standby again")
	for _, l := range all {
		if s := l.pool.Failover(); s.FailbackCount != 0 || s.IsPrimary {
			t.Errorf("%s: moved to a standby: %+v", l.name, s)
		}
	}

	do(t, a.Promote())
	for _, l := range all {
		eventually(t, l.name+" fails back", func() bool { return l.pool.Failover().IsPrimary })
	}
	goesOn(t, all)
	noErrorsSince("the failback")
	for _, l := range all {
		if s := l.pool.Failover(); s.FailoverCount != 1 || s.FailbackCount != 1 {
			t.Errorf("%s: %+v", l.name, s)
		}
		l.finish()
	}
	nothingLostOrDoubled(t, all, rows(t, true, a, b))
}

// An idle transaction on a server that is fenced learns that it was lost; a statement under way is answered.
func TestFencedServerGetsNothingMore(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t)
	b := standby(t, a)
	createCalls(t, a)
	type user struct {
		combination
		db     *sql.DB
		tx     *sql.Tx
		sleeps chan error
	}
	var users []*user
	for _, c := range combinations {
		u := &user{combination: c, db: quietly(t, c.dsn(a.DSN(), "health_check_interval=100ms", to(b))), sleeps: make(chan error, 1)}
		users = append(users, u)
		var err error
		u.tx, err = u.db.Begin()
		do(t, err)
		mustExec(t, u.tx, "INSERT INTO calls VALUES ('tx', 1, 1)")
		poolOf(t, u.db).CheckNow(t.Context())
		go func() {
			_, err := u.db.Exec("SELECT pg_sleep(0.8)")
			u.sleeps <- err
		}()
	}
	eventually(t, "all sleep", func() bool {
		n, err := a.QueryString("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.8)%' AND state = 'active' AND application_name <> 'pgtest'")
		return err == nil && n == fmt.Sprint(len(users))
	})
	do(t, b.Promote()) // with a still there, as an operator must not
	for _, u := range users {
		eventually(t, "the other one is used", func() bool { return !poolOf(t, u.db).Failover().IsPrimary })
		if err := <-u.sleeps; err != nil {
			t.Errorf("%v: the statement under way: %v", u, err)
		}
		if _, err := u.tx.Exec("INSERT INTO calls VALUES ('tx', 2, 1)"); !errors.Is(err, managedpg.ErrTxLost) {
			t.Errorf("%v: in the transaction: got %v, want ErrTxLost", u, err)
		}
		_ = u.tx.Rollback()
	}
	if n, err := a.QueryString("SELECT count(*) FROM calls"); err != nil || n != "0" {
		t.Errorf("%s rows on the fenced server, %v", n, err)
	}
}

// probed waits until each pool has looked so often at its first endpoint.
func probed(t *testing.T, all []*loadedPool, times int64) {
	t.Helper()
	for _, l := range all {
		checks := func() int64 { return l.pool.Health().Endpoints[0].TotalChecks }
		enough := checks() + times
		eventually(t, l.name+" looks", func() bool { return checks() >= enough })
	}
}

// A probe that is cancelled (by a statement_timeout, say) takes nothing from what is known: a fenced server stays fenced.
func TestCancelledProbe(t *testing.T) {
	t.Parallel()
	old := pgtest.Start(t)
	promoted := standby(t, old)
	createCalls(t, old)
	proxy := pgtest.NewProxy(t, old.Addr())
	db := quietly(t, withKeys(proxy.DSN(old.DSN()), "health_check_interval=100ms", "failback_after=1", to(promoted)))
	mustExec(t, db, "INSERT INTO calls VALUES ('a', 1, 1)")
	do(t, promoted.Promote())
	health := func() failover.EndpointHealth { return poolOf(t, db).Health().Endpoints[0] }
	eventually(t, "the old one is fenced", func() bool { return health().Fenced })
	var answer []byte
	for _, m := range []pgproto3.Message{
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "57014", Message: "canceled"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		var err error
		answer, err = m.Encode(answer)
		do(t, err)
	}
	for range 3 {
		proxy.Arm(pgtest.Fault{On: pgtest.OnQuery("pg_control_system"), Do: pgtest.Answer(answer)})
		<-proxy.Fired()
		seen := health().TotalChecks
		eventually(t, "it is probed again", func() bool { return health().TotalChecks > seen+1 })
		if h := health(); !h.Fenced || h.Timeline != 1 {
			t.Errorf("after a cancelled probe: %+v", h)
		}
	}
	mustExec(t, db, "INSERT INTO calls VALUES ('a', 2, 1)")
	if n, err := old.QueryString("SELECT count(*) FROM calls"); err != nil || n != "1" {
		t.Errorf("%s rows on the fenced server, %v", n, err)
	}
}

// twoServers are independent of each other, with a table for calls on both.
func twoServers(t *testing.T) (a, b *pgtest.Cluster) {
	t.Helper()
	a, b = pgtest.Start(t), pgtest.Start(t, pgtest.OwnSystem())
	createCalls(t, a, b)
	return a, b
}

func TestKillOfOneOfTwoServers(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t)
	all := underLoad(t, a, b, 0, "target_session_attrs=any", "health_check_interval=200ms")
	fault := time.Now()
	do(t, a.Kill())
	t.Logf("every worker went on within %v", goesOn(t, all))
	back := time.Now()
	for _, l := range all {
		l.atMostOnePerWorker(fault)
	}
	do(t, a.Restart())
	for _, l := range all {
		eventually(t, l.name+" fails back", func() bool { return l.pool.Failover().IsPrimary })
	}
	goesOn(t, all)
	for _, l := range all {
		if errs, _ := l.errorsBetween(back, time.Now()); len(errs) > 0 {
			t.Errorf("%s: the failback cost %v", l.name, errs)
		}
		l.finish()
	}
	nothingLostOrDoubled(t, all, rows(t, false, a, b))
}

// A server falls silent: frozen; and with its queue of connections full besides, so that even a SYN gets no answer.
func TestHungServer(t *testing.T) {
	t.Parallel()
	for _, unreachable := range []bool{false, true} {
		t.Run(fmt.Sprintf("unreachable=%t", unreachable), func(t *testing.T) {
			a, b := pgtest.Start(t, pgtest.Conf("max_connections=60")), pgtest.Start(t, pgtest.OwnSystem())
			createCalls(t, a, b)
			keys := []string{"target_session_attrs=any", "health_check_timeout=1s", "connect_timeout=1s"}
			timed := underLoad(t, a, b, 2*time.Second, keys...)
			patient := underLoad(t, a, b, 0, append(keys, "health_check_interval=1s")...)
			fault := time.Now()
			do(t, a.Freeze())
			empty := func() {}
			if unreachable {
				empty = fillQueue(t, a)
			}
			for _, l := range timed {
				// 2 s for the deadline, 1 s more for lib/pq to give up.
				eventually(t, l.name+" goes on", func() bool { return l.leastSince(fault.Add(time.Second)) >= 3 })
			}
			t.Logf("with deadlines every worker went on within %v", time.Since(fault))
			for _, l := range patient {
				eventually(t, l.name+" goes on", func() bool { return l.leastSince(fault.Add(time.Second)) >= 3 })
			}
			t.Logf("without deadlines every worker went on within %v", time.Since(fault))
			all := append(timed, patient...)
			for _, l := range all {
				l.atMostOnePerWorker(fault)
				l.finish()
				do(t, l.db.Close())
			}
			empty()
			do(t, a.Thaw())
			eventually(t, "what hung is over", func() bool {
				sessions, err := a.QueryString("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
				return err == nil && sessions == "1"
			})
			nothingLostOrDoubled(t, all, rows(t, false, a, b))
		})
	}
}

// fillQueue makes SYNs to a frozen server go unanswered, until empty is called.
func fillQueue(t *testing.T, c *pgtest.Cluster) (empty func()) {
	t.Helper()
	var queue []net.Conn
	empty = func() {
		for _, conn := range queue {
			conn.Close()
		}
	}
	for range 1000 {
		conn, err := net.DialTimeout("tcp", c.Addr(), 50*time.Millisecond)
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			return empty
		}
		do(t, err)
		queue = append(queue, conn)
	}
	empty()
	t.Fatal("the queue of connections is never full")
	return nil
}

// The first server is up and down every 300 ms: it is left once, and not gone back to before it has answered long enough.
func TestFlappingServer(t *testing.T) {
	t.Parallel()
	a, b := twoServers(t)
	proxy := pgtest.NewProxy(t, a.Addr())
	l := startLoad(t, "flapping", 0, withKeys(proxy.DSN(a.DSN()), "target_session_attrs=any", "pool_size=8",
		"health_check_interval=100ms", "failback_after=10", to(b)))
	eventually(t, "it gets going", func() bool { return l.leastCalls() >= 5 })
	fault := time.Now()
	for range 10 {
		proxy.SetDown(true)
		proxy.ResetAll()
		time.Sleep(300 * time.Millisecond)
		proxy.SetDown(false)
		time.Sleep(300 * time.Millisecond)
	}
	goesOn(t, []*loadedPool{l})
	l.atMostOnePerWorker(fault)
	if s := l.pool.Failover(); s.FailoverCount != 1 || s.FailbackCount != 0 {
		t.Errorf("%d failovers, %d failbacks", s.FailoverCount, s.FailbackCount)
	}
	eventually(t, "it goes back in the end", func() bool { return l.pool.Failover().FailbackCount == 1 })
	goesOn(t, []*loadedPool{l})
	l.finish()
	nothingLostOrDoubled(t, []*loadedPool{l}, rows(t, false, a, b))
}

// db.Close ends the waiting, the probes and the dials of an outage, whichever kind. (Not in parallel: it counts goroutines.)
func TestCloseDuringAnOutage(t *testing.T) {
	for _, kind := range []string{"dead", "frozen"} {
		t.Run(kind, func(t *testing.T) {
			a, b := twoServers(t)
			before := goleak.IgnoreCurrent()
			var dbs []*sql.DB
			for _, c := range combinations {
				db := quietly(t, c.dsn(a.DSN(), "target_session_attrs=any", to(b)))
				mustExec(t, db, "SELECT 1")
				dbs = append(dbs, db)
			}
			for _, s := range []*pgtest.Cluster{a, b} {
				if kind == "dead" {
					do(t, s.Kill())
				} else {
					do(t, s.Freeze())
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var calls sync.WaitGroup
			for _, db := range dbs {
				for range 8 {
					calls.Go(func() {
						if _, err := db.ExecContext(ctx, "SELECT 1"); err == nil {
							t.Error("a call succeeded")
						}
					})
				}
			}
			eventually(t, "all calls are under way", func() bool {
				return !slices.ContainsFunc(dbs, func(db *sql.DB) bool { return db.Stats().InUse != 8 })
			})
			for i, db := range dbs {
				start := time.Now()
				do(t, db.Close())
				if took := time.Since(start); took > time.Second {
					t.Errorf("%v: Close took %v", combinations[i], took)
				}
			}
			cancel() // for those that hang on a connection: they are borrowed, and Close waits for no borrower
			calls.Wait()
			// What is said to a hung server in parting has a second.
			end := time.Now().Add(5 * time.Second)
			err := goleak.Find(before)
			for ; err != nil && time.Now().Before(end); err = goleak.Find(before) {
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// 200 goroutines fail over to a server with little room.
func TestFailoverIsNoStampede(t *testing.T) {
	t.Parallel()
	// A standby must allow as many connections as its primary.
	a := pgtest.Start(t, pgtest.Conf("max_connections=20"))
	b := standby(t, a)
	do(t, a.Exec("CREATE ROLE app LOGIN", "CREATE TABLE hits (n int)", "GRANT ALL ON hits TO app"))
	do(t, b.Exec("SELECT 1"))
	eventually(t, "the role is on the standby", func() bool {
		n, err := b.QueryString("SELECT count(*) FROM pg_class WHERE relname = 'hits' AND has_table_privilege('app', oid, 'INSERT')")
		return err == nil && n == "1"
	})
	as := func(dsn string) string { return strings.Replace(dsn, "postgres@", "app@", 1) }
	for i, base := range []string{"pgx", "pq"} {
		first, second := a, b
		if i == 1 {
			do(t, a.RejoinAsStandby(b))
			first, second = b, a
		}
		t.Run(base, func(t *testing.T) {
			cfg, err := managedpg.ParseDSN(withKeys(as(first.DSN()), "pool_size=10", "base_driver="+base,
				"failover_urls="+url.QueryEscape(as(second.DSN()))))
			do(t, err)
			dialing := dialCount{to: second.Addr()}
			if base == "pgx" {
				cfg.PgxConfig = dialing.watch
			}
			cfg.Logger = slog.New(slog.DiscardHandler)
			db, err := managedpg.OpenDB(cfg)
			do(t, err)
			defer db.Close()
			stop := make(chan struct{})
			var calls sync.WaitGroup
			var worst sync.Map
			var done atomic.Int64
			for range 200 {
				calls.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						_, err := db.Exec("INSERT INTO hits VALUES (1)")
						if err == nil {
							done.Add(1)
						} else if !errors.Is(err, managedpg.ErrOutcomeUnknown) {
							worst.Store(err.Error(), true)
						}
					}
				})
			}
			eventually(t, "it gets going", func() bool { return done.Load() > 400 })
			do(t, first.Kill())
			do(t, second.Promote())
			at := done.Load()
			eventually(t, "it goes on", func() bool { return done.Load() > at+400 })
			close(stop)
			calls.Wait()
			worst.Range(func(err, _ any) bool {
				t.Errorf("an application's call: %v", err)
				return true
			})
			if most := dialing.most.Load(); most > 10+1 {
				t.Errorf("%d dials at once, want at most pool_size and the monitor's own", most)
			}
		})
	}
}

// dialCount counts connections that pgx is opening to a server: from the dial until the session is used, or the socket is
// closed.
type dialCount struct {
	to        string
	now, most atomic.Int64
}

func (d *dialCount) watch(c *pgx.ConnConfig) error {
	under := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != d.to {
			return under(ctx, network, address)
		}
		n := d.now.Add(1)
		for most := d.most.Load(); n > most && !d.most.CompareAndSwap(most, n); most = d.most.Load() {
		}
		conn, err := under(ctx, network, address)
		if err != nil {
			d.now.Add(-1)
			return nil, err
		}
		return &countedConn{Conn: conn, count: d}, nil
	}
	return nil
}

// countedConn is being opened until it is closed, or until a statement is sent on it.
type countedConn struct {
	net.Conn
	count *dialCount
	once  sync.Once
}

func (c *countedConn) Write(b []byte) (int, error) {
	if len(b) > 0 && (b[0] == 'Q' || b[0] == 'P') {
		c.over()
	}
	return c.Conn.Write(b)
}

func (c *countedConn) Close() error {
	c.over()
	return c.Conn.Close()
}

func (c *countedConn) over() { c.once.Do(func() { c.count.now.Add(-1) }) }
