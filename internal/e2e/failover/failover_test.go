package failover_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats"
)

// The primary is killed and its standby promoted. Then the old primary comes back: as it was, which makes two writers; as
// a standby; and promoted again by its operator.
func TestFailoverToAPromotedStandbyAndBack(t *testing.T) {
	t.Parallel()
	a := pgtest.Start(t)
	createCalls(t, a)
	b := rig.Standby(t, a)
	// What a has acknowledged is on b. (b, made before, waits for nobody when it is promoted.)
	rig.NoError(t, a.Exec("ALTER SYSTEM SET synchronous_standby_names = '"+b.Name()+"'", "SELECT pg_reload_conf()"))
	all := underLoad(t, a, b, 0, "health_check_interval=200ms", "failback_after=3")

	fault := time.Now()
	rig.NoError(t, a.Kill())
	rig.NoError(t, b.Promote())
	t.Logf("every worker went on within %v of the promotion", goesOn(t, all))
	for _, l := range all {
		l.onlyWhatWasInFlight(fault)
		if s := l.pool.Failover(); s.FailoverCount != 1 || s.FailbackCount != 0 || s.IsPrimary {
			t.Errorf("%s: %+v", l.name, s)
		}
	}
	steady := time.Now()
	noErrorsSince := func(when string) {
		t.Helper()
		for _, l := range all {
			if errs := l.errorsBetween(steady, time.Now()); len(errs) > 0 {
				t.Errorf("%s: %s: %d errors: %v", l.name, when, len(errs), errs[0])
			}
		}
	}

	rig.NoError(t, a.Restart())
	// A write that reached it would not come back before its standby has it.
	rig.NoError(t, a.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"))
	start, err := a.QueryString("SELECT count(*) FROM calls")
	rig.NoError(t, err)
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

	rig.NoError(t, a.RejoinAsStandby(b))
	probed(t, all, 5)
	goesOn(t, all)
	noErrorsSince("a standby again")
	for _, l := range all {
		if s := l.pool.Failover(); s.FailbackCount != 0 || s.IsPrimary {
			t.Errorf("%s: moved to a standby: %+v", l.name, s)
		}
	}

	back := time.Now()
	rig.NoError(t, a.Promote())
	for _, l := range all {
		rig.Eventually(t, l.name+" fails back", func() bool { return l.pool.Failover().IsPrimary })
	}
	goesOn(t, all)
	for _, l := range all {
		l.atMostOneEachSince(back)                                                // lib/pq sends a statement in two parts: nothing is sent to b any more once it is fenced
		if s := l.pool.Failover(); s.FailoverCount != 2 || s.FailbackCount != 0 { // nobody chose it: the other was fenced
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
	createCalls(t, a)
	b := rig.Standby(t, a)
	holder, err := rig.OpenWith(t, "pgx", a.DSN()).Conn(t.Context())
	rig.NoError(t, err)
	type user struct {
		rig.Combination
		db    *sql.DB
		tx    *sql.Tx
		waits chan error
	}
	var users []*user
	for i, c := range rig.Combinations {
		u := &user{Combination: c, db: rig.OpenQuietly(t, c.DSN(a.DSN(), "health_check_interval=100ms", to(b))), waits: make(chan error, 1)}
		users = append(users, u)
		rig.Exec(t, holder, "SELECT pg_advisory_lock($1)", i)
		var err error
		u.tx, err = u.db.Begin()
		rig.NoError(t, err)
		rig.Exec(t, u.tx, "INSERT INTO calls VALUES ('tx', 1, 1)")
		rig.PoolOf(t, u.db).CheckNow(t.Context())
		go func() {
			_, err := u.db.Exec("SELECT pg_advisory_lock($1)", i)
			u.waits <- err
		}()
	}
	rig.Eventually(t, "all wait", func() bool {
		n, err := a.QueryString("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")
		return err == nil && n == fmt.Sprint(len(users))
	})
	rig.NoError(t, b.Promote()) // with a still there, as an operator must not
	var leaving sync.WaitGroup
	for i, u := range users {
		leaving.Go(func() {
			rig.Eventually(t, "the other one is used", func() bool { return !rig.PoolOf(t, u.db).Failover().IsPrimary })
			rig.Exec(t, holder, "SELECT pg_advisory_unlock($1)", i)
		})
	}
	leaving.Wait()
	for _, u := range users {
		if err := <-u.waits; err != nil {
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

// A probe that is cancelled (by a statement_timeout, say) takes nothing from what is known: a fenced server stays fenced.
func TestCancelledProbe(t *testing.T) {
	t.Parallel()
	old := pgtest.Start(t)
	createCalls(t, old)
	promoted := rig.Standby(t, old)
	proxy := pgtest.NewProxy(t, old.Addr())
	db := rig.OpenQuietly(t, rig.WithKeys(proxy.DSN(old.DSN()), "health_check_interval=100ms", "failback_after=1", to(promoted)))
	rig.Exec(t, db, "INSERT INTO calls VALUES ('a', 1, 1)")
	rig.NoError(t, promoted.Promote())
	health := func() failover.EndpointHealth { return rig.PoolOf(t, db).Health().Endpoints[0] }
	rig.Eventually(t, "the old one is fenced", func() bool { return health().Fenced })
	var answer []byte
	for _, m := range []pgproto3.Message{
		&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "57014", Message: "canceled"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		var err error
		answer, err = m.Encode(answer)
		rig.NoError(t, err)
	}
	for range 3 {
		proxy.Arm(pgtest.Fault{On: pgtest.OnQuery("pg_control_system"), Do: pgtest.Answer(answer)})
		<-proxy.Fired()
		seen := health().TotalChecks
		rig.Eventually(t, "it is probed again", func() bool { return health().TotalChecks > seen+1 })
		if h := health(); !h.Fenced || h.Timeline != 1 {
			t.Errorf("after a cancelled probe: %+v", h)
		}
	}
	rig.Exec(t, db, "INSERT INTO calls VALUES ('a', 2, 1)")
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
	rig.NoError(t, a.Kill())
	t.Logf("every worker went on within %v", goesOn(t, all))
	back := time.Now()
	for _, l := range all {
		l.onlyWhatWasInFlight(fault)
	}
	rig.NoError(t, a.Restart())
	for _, l := range all {
		rig.Eventually(t, l.name+" fails back", func() bool { return l.pool.Failover().IsPrimary })
	}
	goesOn(t, all)
	for _, l := range all {
		if errs := l.errorsBetween(back, time.Now()); len(errs) > 0 {
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
			rig.NoError(t, a.Freeze())
			empty := func() {}
			if unreachable {
				empty = fillQueue(t, a)
			}
			for _, l := range timed {
				// 2 s for the deadline, 1 s more for lib/pq to give up.
				rig.Eventually(t, l.name+" goes on", func() bool { return l.leastSince(fault.Add(time.Second)) >= 3 })
			}
			t.Logf("with deadlines every worker went on within %v", time.Since(fault))
			for _, l := range patient {
				rig.Eventually(t, l.name+" goes on", func() bool { return l.leastSince(fault.Add(time.Second)) >= 3 })
			}
			t.Logf("without deadlines every worker went on within %v", time.Since(fault))
			all := append(timed, patient...)
			for _, l := range all {
				l.onlyWhatWasInFlight(fault)
				l.finish()
				rig.NoError(t, l.db.Close())
			}
			empty()
			rig.NoError(t, a.Thaw())
			rig.Eventually(t, "what hung is over", func() bool {
				sessions, err := a.QueryString("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
				return err == nil && sessions == "1"
			})
			nothingLostOrDoubled(t, all, rows(t, false, a, b))
		})
	}
}

// A call that was closed since its server hangs counts as lost for that reason, which the page names.
func TestHungServerIsNamedAsTheCause(t *testing.T) {
	t.Parallel()
	a, b := pgtest.Start(t), pgtest.Start(t, pgtest.OwnSystem())
	rig.NoError(t, a.Exec("CREATE TABLE t (n int)"))
	told := make(chan error)
	var pools []*managedpg.Pool
	for _, base := range []string{"pgx", "pq"} {
		db := rig.OpenQuietly(t, rig.WithKeys(cluster(a, b), "base_driver="+base, "pool_size=2", "target_session_attrs=any",
			"health_check_timeout=200ms", "health_check_interval=200ms", "connect_timeout=1s"))
		pools = append(pools, rig.PoolOf(t, db))
		go func() {
			_, err := db.Exec("INSERT INTO t SELECT 1 FROM pg_sleep(600)")
			told <- err
		}()
	}
	rig.Eventually(t, "both calls run", func() bool {
		n, err := a.QueryString("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
		return err == nil && n == "2"
	})
	rig.NoError(t, a.Freeze())
	for range pools {
		if err := <-told; !errors.Is(err, managedpg.ErrOutcomeUnknown) {
			t.Errorf("a call is told %v", err)
		}
	}
	for _, p := range pools {
		if errs := p.Stats().Errors; !slices.ContainsFunc(errs, func(e stats.ErrorCount) bool {
			return e.Kind == stats.ErrorOutcomeUnknown && e.Code == "hung"
		}) {
			t.Errorf("errors are %v", errs)
		}
	}
	rig.NoError(t, a.Thaw())
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
		rig.NoError(t, err)
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
	l := startLoad(t, "flapping", 0, rig.WithKeys(proxy.DSN(a.DSN()), "target_session_attrs=any", "pool_size=8",
		"health_check_interval=100ms", "failback_after=10", to(b)))
	rig.Eventually(t, "it gets going", func() bool { return l.leastCalls() >= 5 })
	fault := time.Now()
	for range 10 {
		proxy.SetDown(true)
		proxy.ResetAll()
		time.Sleep(300 * time.Millisecond)
		proxy.SetDown(false)
		time.Sleep(300 * time.Millisecond)
	}
	goesOn(t, []*loadedPool{l})
	l.onlyWhatWasInFlight(fault)
	if s := l.pool.Failover(); s.FailoverCount != 1 || s.FailbackCount != 0 {
		t.Errorf("%d failovers, %d failbacks", s.FailoverCount, s.FailbackCount)
	}
	rig.Eventually(t, "it goes back in the end", func() bool { return l.pool.Failover().FailbackCount == 1 })
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
			for _, c := range rig.Combinations {
				db := rig.OpenQuietly(t, c.DSN(a.DSN(), "target_session_attrs=any", to(b)))
				rig.Exec(t, db, "SELECT 1")
				dbs = append(dbs, db)
			}
			for _, s := range []*pgtest.Cluster{a, b} {
				if kind == "dead" {
					rig.NoError(t, s.Kill())
				} else {
					rig.NoError(t, s.Freeze())
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
			rig.Eventually(t, "all calls are under way", func() bool {
				return !slices.ContainsFunc(dbs, func(db *sql.DB) bool { return db.Stats().InUse != 8 })
			})
			for i, db := range dbs {
				start := time.Now()
				rig.NoError(t, db.Close())
				if took := time.Since(start); took > time.Second {
					t.Errorf("%v: Close took %v", rig.Combinations[i], took)
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
