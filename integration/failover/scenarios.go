package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// scenario is a way to lose a server.
type scenario struct {
	name  string
	bound string // as in the project's issue 3
	start func() (*pair, error)
	run   func(*pair, setup) ([]outcome, error)
	mend  func(*pair) error // makes the servers fit for the next repetition
}

var scenarios = []scenario{
	{
		"1 kill and promotion",
		"kill -9 of the primary, then its standby is promoted. Bounds: errors <= statements in flight; every other call succeeds; " +
			"median to the first success <= 60 ms after the standby accepts writes.",
		replicated, promotion, (*pair).Swap,
	},
	{
		"2 kill, independent servers",
		"target_session_attrs=any, kill -9 of the first. Bounds: errors <= statements in flight; median to the first success <= 25 ms.",
		independent, independentKill, func(p *pair) error { return p.A.Restart() },
	},
	{
		"3a freeze, deadlines",
		"SIGSTOP of the first server, 1 s deadline on each call, health_check_timeout=500ms. Bounds: one error per worker; " +
			"all later calls succeed, none slower than usual by more than 50 ms.",
		independent, hang((*pgtest.Cluster).Freeze, nil, time.Second, "health_check_timeout=500ms"), thaw,
	},
	{
		"3b freeze, no deadlines",
		"The same without deadlines, health_check_interval=1s. Bound: stuck calls return within 3 s, nothing lost or doubled.",
		independent, hang((*pgtest.Cluster).Freeze, nil, 0, "health_check_timeout=500ms", "health_check_interval=1s"), thaw,
	},
	{
		"4a black hole, deadlines",
		"SYNs and everything else to the first server are swallowed; connect_timeout=1s. Bounds as in 3a.",
		independent, hang(nil, (*pair).blackHole, time.Second, "health_check_timeout=500ms", "connect_timeout=1s"), thaw,
	},
	{
		"4b black hole, no deadlines",
		"The same without deadlines, health_check_interval=1s. Bound as in 3b.",
		independent, hang(nil, (*pair).blackHole, 0, "health_check_timeout=500ms", "health_check_interval=1s", "connect_timeout=1s"), thaw,
	},
	{
		"5 the old primary returns",
		"After kill -9 and promotion it comes back (a) as it was, a second writer; (b) as a standby; (c) promoted again, by its operator. " +
			"failback_after=3, health_check_interval=200ms. Bounds: (a) not one statement reaches it, (b) nor then, and no error in either; (c) all do again, " +
			"and nobody has an error but for those in flight, as nothing more is written to the other server from when it is fenced.",
		replicated, comeback, mendComeback,
	},
}

const (
	warmUp = 300 * time.Millisecond // of a load that runs: it says what is usual
	coda   = 400 * time.Millisecond // from when all is well again to the end of the load
)

func promotion(p *pair, with setup) ([]outcome, error) {
	db, err := p.open(with)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	l := startLoad(db, 0)
	if err := l.settle(); err != nil {
		return nil, err
	}
	fault := time.Now()
	if err := p.A.Kill(); err != nil {
		return nil, err
	}
	killed := time.Now()
	if err := p.B.Promote(); err != nil {
		return nil, err
	}
	writable := time.Now()
	time.Sleep(coda)
	o, err := p.judge("promotion", l.finish(), fault, killed, writable, p.B)
	if err != nil {
		return nil, err
	}
	o.want(o.errors <= o.inFlight, "more errors than statements in flight")
	o.want(o.hasFirst, "no success on the new primary")
	return []outcome{o}, nil
}

func independentKill(p *pair, with setup) ([]outcome, error) {
	db, err := p.open(with, "target_session_attrs=any")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	l := startLoad(db, 0)
	if err := l.settle(); err != nil {
		return nil, err
	}
	fault := time.Now()
	if err := p.A.Kill(); err != nil {
		return nil, err
	}
	killed := time.Now()
	time.Sleep(coda)
	calls := l.finish()
	// What it inserted is on its disk.
	if err := p.A.Restart(); err != nil {
		return nil, err
	}
	// To kill takes some 20 ms on a busy machine; the first connection that breaks says when it happened.
	dead := killed
	for _, c := range calls {
		if c.err != nil && c.end.After(fault) && c.end.Before(dead) {
			dead = c.end
		}
	}
	o, err := p.judge("independent", calls, fault, killed, dead, p.A, p.B)
	if err != nil {
		return nil, err
	}
	o.want(o.errors <= o.inFlight, "more errors than statements in flight")
	o.want(o.hasFirst, "no success on the other server")
	return []outcome{o}, nil
}

// hang is a server that goes silent.
func hang(freeze func(*pgtest.Cluster) error, hole func(*pair) error, deadline time.Duration, params ...string) func(*pair, setup) ([]outcome, error) {
	return func(p *pair, with setup) ([]outcome, error) {
		db, err := p.open(with, append([]string{"target_session_attrs=any"}, params...)...)
		if err != nil {
			return nil, err
		}
		defer db.Close()
		l := startLoad(db, deadline)
		if err := l.settle(); err != nil {
			return nil, err
		}
		fault := time.Now()
		if freeze != nil {
			err = freeze(p.A)
		} else {
			err = hole(p)
		}
		if err != nil {
			return nil, err
		}
		silent := time.Now()
		wait := 2500 * time.Millisecond // calls that their deadline ended may take a second to return
		if deadline == 0 {
			wait = 3500 * time.Millisecond
		}
		time.Sleep(wait)
		calls := l.finish()
		if err := db.Close(); err != nil {
			return nil, err
		}
		if err := thaw(p); err != nil {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond) // what hung goes on
		part := "freeze"
		o, err := p.judge(part, calls, fault, silent, fault, p.A, p.B)
		if err != nil {
			return nil, err
		}
		o.want(o.perWorker <= 1, "more than one error for a worker")
		o.want(o.hasFirst, "no success on the other server")
		if deadline > 0 {
			o.want(o.slow == 0 || untimed, "slow later calls")
		} else {
			o.want(o.stuck <= 3*time.Second || untimed, "a stuck call took longer than 3 s")
		}
		return []outcome{o}, nil
	}
}

func comeback(p *pair, with setup) ([]outcome, error) {
	db, err := p.open(with, "health_check_interval=200ms", "failback_after=3")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	pool, _ := managedpg.PoolOf(db)
	l := startLoad(db, 0)
	if err := l.settle(); err != nil {
		return nil, err
	}
	fault := time.Now()
	if err := p.A.Kill(); err != nil {
		return nil, err
	}
	killed := time.Now()
	if err := p.B.Promote(); err != nil {
		return nil, err
	}
	writable := time.Now()
	time.Sleep(coda)
	if err := p.A.Restart(); err != nil {
		return nil, err
	}
	// A write that reached it would wait for its standby for ever.
	if err := p.A.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"); err != nil {
		return nil, err
	}
	returned := time.Now()
	time.Sleep(1500 * time.Millisecond) // far more than 3 probes
	reached, err := p.A.QueryString("SELECT count(*) FROM calls")
	if err != nil {
		return nil, err
	}
	atKill, err := p.B.QueryString(fmt.Sprintf("SELECT count(*) FROM calls WHERE port = %d", p.A.Port()))
	if err != nil {
		return nil, err
	}
	usedA := pool.Failover().IsPrimary
	rejoining := time.Now()
	if err := p.A.RejoinAsStandby(p.B); err != nil {
		return nil, err
	}
	time.Sleep(1500 * time.Millisecond)
	usedB := pool.Failover().IsPrimary
	failbacks := pool.Failover().FailbackCount
	promoting := time.Now()
	if err := p.A.Promote(); err != nil {
		return nil, err
	}
	again := time.Now()
	time.Sleep(1500 * time.Millisecond)
	after := pool.Failover()
	calls := l.finish()

	kill, err := p.judge("", calls, fault, killed, writable, p.A, p.B)
	if err != nil {
		return nil, err
	}
	part := func(name string, from, to time.Time, most int) outcome {
		o := outcome{part: "5: " + name}
		for _, c := range calls {
			if c.start.After(from) && c.end.Before(to) {
				o.later++
				if c.err != nil {
					o.errors++
					o.sample = c.err
				}
			}
		}
		o.want(o.errors <= most, "%d errors", o.errors)
		return o
	}
	a := part("a second writer", returned, rejoining, 0)
	a.want(!usedA, "moved to the old primary")
	// On the disk of the old primary there may be a row whose commit was not acknowledged, but of none after the kill.
	a.want(atLeast(reached, atKill, workers), "%s rows on the old primary, %s at the kill", reached, atKill)
	b := part("b standby", rejoining, promoting, 0)
	b.want(!usedB && failbacks == 0, "moved to the standby")
	c := part("c promoted again", promoting, again.Add(time.Hour), workers)
	c.lost, c.doubled, c.untrue, c.failed = kill.lost, kill.doubled, kill.untrue, append(c.failed, kill.failed...)
	// It is forced to, as the other one is fenced then: a failover, the second one.
	c.want(after.IsPrimary && after.FailoverCount == 2 && after.FailbackCount == 0, "%d failovers, %d failbacks, back on the first: %t",
		after.FailoverCount, after.FailbackCount, after.IsPrimary)
	rows, err := p.inserted(p.A)
	if err != nil {
		return nil, err
	}
	for _, call := range calls {
		if call.err == nil && call.end.After(promoting) && rows[call.id][p.A.Port()] == 1 {
			c.first, c.hasFirst = max(0, call.end.Sub(again)), true
			break
		}
	}
	return []outcome{a, b, c}, nil
}

// atLeast says that one number is what the other is, or more by no more than extra.
func atLeast(got, want string, extra int) bool {
	var g, w int
	fmt.Sscan(got, &g)
	fmt.Sscan(want, &w)
	return g >= w && g <= w+extra
}

func mendComeback(p *pair) error {
	if err := p.B.RejoinAsStandby(p.A); err != nil {
		return err
	}
	return p.Synchronous()
}

// judge holds the calls against the rows that are on the servers, and against each other. The fault took place between
// two times; since is what the first success is measured from.
func (p *pair) judge(part string, calls []call, fault, done, since time.Time, on ...*pgtest.Cluster) (outcome, error) {
	o := outcome{part: part}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, c := range on {
		if err := c.WaitReady(ctx); err != nil {
			return o, err
		}
	}
	rows, err := p.inserted(on...)
	if err != nil {
		return o, err
	}
	var before []time.Duration
	var errors [workers]int
	var caught [workers]bool
	for _, c := range calls {
		if c.end.Before(fault) && c.start.After(fault.Add(-warmUp)) {
			before = append(before, c.took())
		}
		n := 0
		for _, times := range rows[c.id] {
			n += times
		}
		if n > 1 {
			o.doubled++
		}
		switch {
		case c.err == nil && n == 0:
			o.lost++
		case c.err != nil && !unsure(c.err) && n > 0:
			o.untrue++
		}
		if c.err != nil {
			o.errors++
			o.sample = c.err
			errors[c.worker]++
		}
		if c.during(fault, done) {
			caught[c.worker] = true
			o.stuck = max(o.stuck, c.took())
		}
		if c.err == nil && !o.hasFirst && rows[c.id][p.B.Port()] > 0 {
			o.first, o.hasFirst = max(0, c.end.Sub(since)), true
		}
	}
	for w := range workers {
		o.perWorker = max(o.perWorker, errors[w])
		if caught[w] {
			o.inFlight++
		}
	}
	o.usual = quantile(before, 0.99)
	var opened [workers]bool // it has called since: the first call finds no connection
	for _, c := range calls {
		if c.start.Before(done) || c.err != nil {
			continue
		}
		o.later++
		o.slowest = max(o.slowest, c.took())
		if c.took() > o.usual+tolerated {
			o.slow++
			if opened[c.worker] {
				o.slowAgain++
			}
		}
		opened[c.worker] = opened[c.worker] || rows[c.id][p.B.Port()] > 0
	}
	o.want(len(before) > 0 && !slices.ContainsFunc(calls, func(c call) bool { return c.end.Before(fault) && c.err != nil }), "errors before the fault")
	o.want(o.lost == 0, "rows lost")
	o.want(o.doubled == 0, "rows doubled")
	o.want(o.untrue == 0, "rows there of calls that were told they had not been sent")
	return o, nil
}
