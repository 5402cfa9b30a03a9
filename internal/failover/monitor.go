package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/internal/limit"
	"github.com/managedpg/managedpg/internal/usercode"
)

// watch probes an endpoint when it is due, until Close.
func (g *Group) watch(e *endpoint, first time.Duration) {
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-g.done:
			return
		case <-e.left:
			return
		case <-e.poked:
		case <-timer.C:
			g.check(e)
		}
		g.mu.Lock()
		timer.Reset(max(0, time.Until(e.due)))
		g.mu.Unlock()
	}
}

// firstProbe is how long the first probe waits. With a single endpoint it has nothing to find out that the first dial, which starts
// the monitor, doesn't tell.
func (g *Group) firstProbe() time.Duration {
	if len(g.endpoints) > 1 {
		return 0
	}
	return jittered(g.opts.HealthCheckInterval)
}

// pokeLocked has the endpoint probed on the evidence of a call or a dial, once at a time.
func (g *Group) pokeLocked(e *endpoint) {
	if !e.watched {
		return
	}
	if e.underWay != nil {
		e.again = true // the probe under way may have passed before things went wrong
		return
	}
	g.probeSoonLocked(e)
}

// probeSoonLocked has the endpoint probed now, or when enough time has passed since the last probe.
func (g *Group) probeSoonLocked(e *endpoint) {
	wait, calm := evidenceWait(e.calm, time.Since(e.began))
	e.calm = calm
	g.probeByLocked(e, e.began.Add(wait))
}

// probeByLocked has the endpoint probed at a time, or at once when that is past, unless it is due earlier.
func (g *Group) probeByLocked(e *endpoint, at time.Time) {
	if !e.due.After(at) {
		return
	}
	g.setDueLocked(e, at)
}

// setDueLocked has the monitor look again.
func (g *Group) setDueLocked(e *endpoint, at time.Time) {
	e.due = at
	select {
	case e.poked <- struct{}{}:
	default: // the monitor is about to look anyway
	}
}

// check probes an endpoint once and takes the result in, or sees to it that somebody else has who began after it was called. It returns at the
// probe's limit even if the probe doesn't; one still hanging from before counts as one not answered.
func (g *Group) check(e *endpoint) {
	p := g.begin(e)
	if p == nil {
		return
	}
	wait, stop := limit.New(context.Background(), g.opts.HealthCheckTimeout)
	defer stop()
	g.refresh(wait, e.host)
	select {
	case e.probing <- struct{}{}:
	case <-g.done:
		return
	case <-wait.Done():
		g.checked(e, p, Observation{}, g.unanswered())
		return
	}
	ctx, cancel := limit.New(context.Background(), g.opts.HealthCheckTimeout)
	defer cancel()
	p.began = time.Now()
	returned := g.launch(ctx, e, p)
	select {
	case <-returned:
	case <-g.done:
	case <-ctx.Done():
		g.checked(e, p, Observation{}, g.unanswered())
	}
}

// begin makes a probe the one that is under way, once no other is. Nil: there is no need, as one that began since then is over.
func (g *Group) begin(e *endpoint) *probing {
	g.mu.Lock()
	defer g.mu.Unlock()
	for before := e.begun; !g.closed; {
		other, shared := e.underWay, e.begun != before
		switch {
		case other != nil:
			g.mu.Unlock()
			select {
			case <-other.done:
			case <-g.done:
			}
			g.mu.Lock()
		case !shared:
			e.begun++
			e.underWay = &probing{began: time.Now(), done: make(chan struct{})}
			return e.underWay
		}
		if shared {
			return nil
		}
	}
	return nil
}

func (g *Group) unanswered() error {
	return fmt.Errorf("no answer to a probe within %v: %w", g.opts.HealthCheckTimeout, context.DeadlineExceeded)
}

// probing is a probe under way.
type probing struct {
	began time.Time
	done  chan struct{} // closed when its result, or its lack of one, has been taken in
	over  bool          // the same, guarded by Group.mu
}

type anewKey struct{}

// Anew says, of a probe's context, that it must open a connection of its own: whether there is room is the question.
func Anew(ctx context.Context) bool { return ctx.Value(anewKey{}) != nil }

type afreshKey struct{}

// Afresh says, of a probe's context, that the address is the question: whether it lets anybody in, and where it leads to now, whatever the
// connection tells that was kept.
func Afresh(ctx context.Context) bool { return ctx.Value(afreshKey{}) != nil }

// launch runs the probe in a goroutine of its own, in case that it ignores its context. The permit to probe is given
// back only after the result was taken in, so that results never overtake each other.
func (g *Group) launch(ctx context.Context, e *endpoint, p *probing) <-chan struct{} {
	returned := make(chan struct{})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		<-e.probing
		close(returned)
		return returned
	}
	e.began = p.began
	e.again = false
	if e.full {
		ctx = context.WithValue(ctx, anewKey{}, true)
	} else if g.asksAfreshLocked(e) {
		ctx = context.WithValue(ctx, afreshKey{}, true)
	}
	to := g.routeLocked(e)
	g.strays.run(func() {
		var o Observation
		err := usercode.Call(func() (err error) { o, err = e.host.Probe(ctx, to); return err })
		g.logPanic(err)
		if err != nil && ctx.Err() != nil {
			err = g.unanswered()
		}
		g.checked(e, p, o, err)
		<-e.probing
		close(returned)
	})
	return returned
}

// asksAfreshLocked says that a connection which a probe has kept doesn't do. A server may go on with the sessions that it has and let nobody in
// any more, as in a smart shutdown; and what was kept of an address that leads to several servers speaks for one of them, which may have
// changed its role.
func (g *Group) asksAfreshLocked(e *endpoint) bool {
	switch {
	case e.state == Down, e.state == Misconfigured:
		return true
	case e.seen && (!e.admitted || e.fenced) && time.Since(e.afreshAt) >= g.afreshAfterLocked():
		e.afreshAt = time.Now()
		return true
	default:
		return g.twinnedLocked(e)
	}
}

// afreshAfterLocked is how often an address is asked that has shown a role which won't do, or an old timeline. A connection costs the server a
// process, but somebody may be waiting for it, or for a server that can be written to.
func (g *Group) afreshAfterLocked() time.Duration {
	if !g.lostAt.IsZero() || g.rules.target == targetAny && !g.current.writes() {
		return time.Second
	}
	return time.Minute
}

// twinnedLocked says that an endpoint of another name seems to be the same writer. Of two names for one server one may lead elsewhere by now, as
// Kubernetes' services do after a promotion, and the connection that a probe has kept never would.
func (g *Group) twinnedLocked(e *endpoint) bool {
	return slices.ContainsFunc(g.endpoints, func(o *endpoint) bool {
		return o.host != e.host && sameWriter(candidate{Observation: o.Observation}, candidate{Observation: e.Observation})
	})
}

// logPanic tells of a panic in code of the user's that a probe ran: a dialer, a TLS callback, OptionBeforeConnect.
func (g *Group) logPanic(err error) {
	var p *usercode.Panic
	if !errors.As(err, &p) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logLocked(slog.LevelError, "managedpg: panic in a probe", "panic", fmt.Sprint(p.Value), "stack", string(p.Stack))
}

// checked takes a probe's result in, unless its time was up before, and says when the next is due.
func (g *Group) checked(e *endpoint, p *probing, o Observation, err error) {
	g.mu.Lock()
	defer g.unlock()
	if g.closed || p.over {
		return
	}
	p.over = true
	if e.underWay == p {
		e.underWay = nil
	}
	close(p.done)
	now := time.Now()
	e.countLocked(p.began, now, err)
	effect := alive
	if err != nil {
		effect = effectOf(fromProbe, evidence.Of(err))
	}
	var outdated doubt
	switch {
	case effect != alive && effect != full:
	case (e.state == Down || e.state == Suspect) && e.badAt.After(p.began) && !g.singleLocked():
		outdated = doubtAlive
	case err == nil && e.overtakenLocked(p.began, o, g.rules.target):
		outdated = doubtRole
	}
	doubted := outdated&^e.doubted != 0
	if e.doubted |= outdated; !doubted {
		e.doubted = 0
	}
	switch {
	case doubted: // for each of the two once in a row: an address that leads to several servers contradicts itself for ever
		e.unanswered, e.stuckAt = 0, 0
		if err == nil {
			g.doubtLocked(e, p.began, o.identifiedBy(e.Observation))
		}
		e.again = true
	case err == nil:
		e.upLocked()
		e.good++
		g.observeLocked(e, o.identifiedBy(e.Observation))
		g.measureLocked(e, o, now)
	default:
		e.good, e.calm = 0, 0
		g.probeFailedLocked(e, p.began, effect, err)
	}
	g.settleLocked()
	g.setDueLocked(e, now.Add(g.paceLocked(e, now).wait(now, rand.Float64())))
	if e.again {
		e.again = false
		g.probeSoonLocked(e)
	}
}

// paceLocked is what the wait for the next probe goes by.
func (g *Group) paceLocked(e *endpoint, now time.Time) pace {
	p := pace{interval: g.opts.HealthCheckInterval, spread: g.rules.balances(), state: e.state, fails: e.fails, lagAt: g.lagAtLocked(e, now)}
	if g.hurriedLocked(now) && e.awaitedLocked(g.rules.target) {
		p.hurrying = g.hurrying
	}
	return p
}

// hurriedLocked says that a checkout waits, or did a moment ago: short deadlines come and go.
func (g *Group) hurriedLocked(now time.Time) bool {
	return !g.hurrying.IsZero() && (g.waiting > 0 || now.Sub(g.waitedAt) < hurryAtMost)
}

// awaitedLocked: a checkout that waits hopes for it. A refusal is no matter of time, and asking often can lock an account.
func (e *endpoint) awaitedLocked(t target) bool {
	return e.state != Misconfigured && !e.barred && !e.usable(t)
}

// hastenLocked makes the probes hurry for a checkout that waits.
func (g *Group) hastenLocked() {
	if g.lostAt.IsZero() {
		return
	}
	now := time.Now()
	if g.hurrying.IsZero() || g.waiting == 0 && now.Sub(g.waitedAt) > hurryFor {
		g.hurrying = now
	}
	for _, e := range g.endpoints {
		if e.watched && e.awaitedLocked(g.rules.target) && e.underWay == nil {
			g.probeByLocked(e, e.began.Add(hurryWait(now.Sub(g.hurrying))))
		}
	}
}

// probeFailedLocked says what a failed probe means.
func (g *Group) probeFailedLocked(e *endpoint, began time.Time, means effect, err error) {
	if means == suspectNow && e.fails > 0 {
		means = down // a session ended once is no dead server; twice in a row it is as good as one
	}
	switch means {
	case down:
		e.fails++
		if evidence.Silence(err) {
			// Not since the first: that may have been under way already when a call heard its last.
			e.silentSince, e.silentLast = e.silentLast, began
			e.unanswered++
			g.abandonLocked(e)
		} else {
			e.unanswered, e.stuckAt = 0, 0
		}
		g.downLocked(e, err)
	case suspectNow:
		e.fails++
		e.suspectLocked()
	case alive:
		e.upLocked()
	case full:
		e.crowdedLocked(err)
	case misconfigured:
		g.refusedLocked(e, err)
	}
}

// abandonLocked moves the checkouts on that are dialling a hung endpoint.
func (g *Group) abandonLocked(e *endpoint) {
	if g.singleLocked() {
		return // there is nowhere to go; the dial has its own limit
	}
	for a := range g.dials {
		if a.endpoint == e && !a.last {
			g.out.post(func() { a.cancel(errAbandoned) })
		}
	}
}

// countLocked notes a probe for Health.
func (e *endpoint) countLocked(began, now time.Time, err error) {
	took := now.Sub(began)
	e.checks.total++
	e.lastCheck = now
	c := Check{At: now, OK: err == nil, ResponseTime: took}
	if err == nil {
		e.response = took
		e.checks.goodTime += took
	} else {
		e.checks.failed++
		c.Error = redact(err.Error())
	}
	e.history = appendBounded(e.history, c, keptChecks)
}

// CheckNow probes all endpoints now and returns what is then known of them. It returns earlier when ctx ends.
func (g *Group) CheckNow(ctx context.Context) Health {
	g.checkAll(ctx)
	return g.Health()
}

func (g *Group) checkAll(ctx context.Context) {
	all := make(chan struct{})
	var checks sync.WaitGroup
	for _, h := range g.hosts {
		g.refresh(ctx, h)
	}
	g.mu.Lock()
	members := slices.Clone(g.endpoints)
	g.mu.Unlock()
	for _, e := range members {
		if e.host.Probe == nil {
			continue
		}
		checks.Add(1)
		if !g.run(func() { defer checks.Done(); g.check(e) }) {
			checks.Done()
		}
	}
	if !g.run(func() { checks.Wait(); close(all) }) {
		return
	}
	select {
	case <-all:
	case <-g.done:
	case <-ctx.Done():
	}
}
