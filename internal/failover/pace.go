package failover

import (
	"math/rand/v2"
	"time"
)

// pace is the wait before the next probe. It needs the lock.
func (g *Group) pace(e *endpoint, now time.Time) time.Duration {
	interval := g.opts.HealthCheckInterval
	wait := jittered(interval)
	switch e.state {
	case Suspect:
		wait = min(wait, firstRetry)
	case Down:
		retry := interval
		if e.fails < 16 {
			retry = min(retry, firstRetry<<max(0, e.fails-1))
		}
		if g.rules.balances() {
			retry = min(retry, awaitEvery)
		}
		wait = jittered(retry)
	}
	if in := g.checkLagIn(e, now); in > 0 && e.state == Up {
		wait = min(wait, in)
	}
	if g.hurried(now) && e.awaited(g.rules.target) {
		wait = min(wait, hurryPace(now.Sub(g.hurrying)))
	}
	return wait
}

// hurried says that a checkout waits, or did a moment ago: short deadlines come and go. It needs the lock.
func (g *Group) hurried(now time.Time) bool {
	return !g.hurrying.IsZero() && (g.waiting > 0 || now.Sub(g.waitedAt) < hurryAtMost)
}

// awaited: a checkout that waits hopes for it. A refusal is no matter of time, and asking often can lock an account.
func (e *endpoint) awaited(t target) bool {
	return e.state != Misconfigured && !e.barred && !e.usable(t)
}

func hurryPace(since time.Duration) time.Duration {
	return min(hurryAtMost, min(max(hurryFirst, since/40), hurry)+max(0, since-hurryFor)/8)
}

// hasten makes the probes hurry for a checkout that waits. It needs the lock.
func (g *Group) hasten() {
	if g.lostAt.IsZero() {
		return
	}
	now := time.Now()
	if g.hurrying.IsZero() || g.waiting == 0 && now.Sub(g.waitedAt) > hurryFor {
		g.hurrying = now
	}
	for _, e := range g.endpoints {
		if e.watched && e.awaited(g.rules.target) && len(e.probing) == 0 {
			g.probeBy(e, e.began.Add(hurryPace(now.Sub(g.hurrying))))
		}
	}
}

// jittered takes a random tenth off.
func jittered(d time.Duration) time.Duration {
	if d < 10 {
		return d
	}
	return d - rand.N(d/10)
}
