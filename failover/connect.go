package failover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/limit"
	"github.com/managedpg/managedpg/internal/usercode"
)

const (
	// leastGrace is what a suspect endpoint gets for a dial at least when another is usable; it gets four times what its
	// last good probe took if that is more, up to mostGrace. A probe is under way too: once that was answered, a dial gets
	// its full time.
	leastGrace = 10 * time.Millisecond
	mostGrace  = 50 * time.Millisecond
	// headStart is how long the first dial to an endpoint without connections has it to itself: a server that eight dials
	// reach at once answers the first of them several times later.
	headStart = 50 * time.Millisecond
	// A server with no room is asked again after firstBusy, then after ever longer, up to busyAtMost.
	firstBusy  = 25 * time.Millisecond
	busyAtMost = time.Second
)

var (
	errAbandoned = errors.New("a probe was not answered meanwhile")
	errShare     = errors.New("no answer within its share of the checkout's time")
	errGrace     = errors.New("suspect, and no answer shortly")
	errLimit     = errors.New("no answer within connect_timeout")
)

// attempt is one dial under way. Its context carries it to Admit.
type attempt struct {
	group    *Group
	endpoint *endpoint
	cancel   context.CancelCauseFunc
	verdicts int   // the endpoint's when the dial began
	last     bool  // there is nobody else to ask
	picky    bool  // see checkout
	spurned  bool  // it was turned down for that
	refusal  error // what Admit answered
}

type attemptKey struct{}

// Admit is for whoever opens the connections: it is called with the context of a dial that Connect asked for, once the
// connection is open and its server's role has been read. An error means that the connection must not be used: close
// it, and return the error (wrapped or not) from the dial; Connect then goes on with another endpoint. With any other
// context it answers nil. A dial that succeeds without calling it is taken to be as eligible as is known.
func Admit(ctx context.Context, o Observation) error {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return nil
	}
	return a.group.admit(a, o)
}

func (g *Group) admit(a *attempt, o Observation) error {
	g.mu.Lock()
	defer g.unlock()
	e := a.endpoint
	promoted := e.seen && o.writes() && !e.writes()
	o = o.over(e.Observation)
	g.fence.see(e.name, o)
	admits, shut := g.rules.target.admits(o), g.fence.shuts(o)
	switch {
	case !e.watched, e.lastCheck.IsZero(), admits && !shut:
		g.observe(e, o)
		e.dialSaw = time.Now()
	default:
		// Behind a proxy this may be another server than the one the others lead to: only a probe decides for them.
		g.poke(e)
	}
	if promoted {
		g.poke(e) // the sooner its timeline is known, the sooner an old writer is fenced
	}
	switch {
	case shut:
		a.refusal = &ineligibleError{e.name, g.whyFenced(o)}
	case !admits:
		a.refusal = &ineligibleError{e.name, g.whyNotAdmitted(o)}
	case a.picky && g.fitterThan(e, o):
		a.refusal, a.spurned = &ineligibleError{e.name, "another one is, or may be, fitter"}, true
	}
	g.settle()
	return a.refusal
}

// Unreached is the error for a caller that gave up, with err, before Connect had found an endpoint; nil when one is usable, or only one
// could ever be.
func (g *Group) Unreached(err error, waited time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.alone || g.lostAt.IsZero() {
		return nil
	}
	c := &checkout{Group: g, began: time.Now().Add(-waited)}
	return c.failLocked(err)
}

// Connect finds an endpoint for a new connection: it calls dial with the best-ranked usable one, with the next ones when
// that fails, and waits for one to become usable, within ctx and FailoverTimeout. The dial's context is limited to
// ConnectTimeout and to an equal share, among the endpoints still to try, of the time left in ctx and FailoverTimeout, not
// counting the time for which dial has stopped it (internal/limit) to run hooks of the user's; it ends early when a probe finds
// that the endpoint hangs. The dial must return soon after its context ends.
//
// It ends with nil once a dial succeeded, or with a *NoEndpointError; with ErrClosed after Close. When only one endpoint can
// ever be used it never waits: like a bare driver it makes one dial, whatever the endpoint's state (53xxx included), and
// ends with the dial's own error; or one dial to each of its addresses, if it has several.
//
// Where a server has no room (53xxx) the others are asked; when none of them will do it is asked again with backoff, within the
// budget. When all are misconfigured, Connect asks them once more and fails at once.
//
// A connection whose Route's Epoch is no longer what it was before the dial must not be used.
func (g *Group) Connect(ctx context.Context, until time.Time, dial func(ctx context.Context, to Route) error) error {
	g.Start()
	c := &checkout{
		Group: g, ctx: ctx, until: until, dial: dial, began: time.Now(),
		rounds: 1, tried: make(map[*endpoint]trial), asked: make(map[*endpoint]bool),
		looked: make(map[*host]bool),
		picky:  g.rules.balances(),
	}
	defer c.arrived()
	if g.alone {
		return c.round()
	}
	return c.search()
}

// checkout is one call of Connect.
type checkout struct {
	*Group
	ctx   context.Context
	until time.Time // when whoever it is for gives up; zero: never, as far as is known
	dial  func(context.Context, Route) error
	began time.Time

	rounds  int                 // over all endpoints, begun
	waited  bool                // for one to become usable
	tried   map[*endpoint]trial // this round's
	looked  map[*host]bool      // whose names were looked up in this round
	asked   map[*endpoint]bool  // misconfigured ones, asked once in all
	busy    int                 // rounds in a row in which a server had no room
	full    []*endpoint         // this round's that had none
	patient bool                // nobody else is left: suspects get their full time
	bound   *endpoint           // where the next dial leads to
	picky   bool                // it has turned nobody down yet in favour of one that is fitter
}

// trial is a dial that failed.
type trial struct {
	err     error
	revived int  // the endpoint's then: once it becomes usable anew, it is worth another dial
	early   bool // it was ended before its time, for the sake of other endpoints
}

// outcome is what follows from a dial.
type outcome int

const (
	finished outcome = iota // with or without an error
	goOn                    // with the next endpoint
	noRoom                  // the same, and when none is left wait, and ask this one again
)

// search is for several endpoints.
func (c *checkout) search() error {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return ErrClosed
		}
		changed := c.changed
		c.goTo(nil)
		e, left := c.next()
		c.goTo(e)
		if e == nil {
			hopeless := c.hopeless()
			c.mu.Unlock()
			if hopeless {
				return c.fail(nil)
			}
			if c.full != nil {
				if err := c.backOff(); err != nil {
					return err
				}
				continue
			}
			if err := c.wait(changed); err != nil {
				return err
			}
			continue
		}
		c.mu.Unlock()
		if c.looks(e) {
			if what, err := c.lookUp(e, left); what == finished {
				return err
			}
			continue
		}

		turn, err := c.queue(e, changed)
		if err != nil {
			return err
		}
		if !turn {
			continue
		}
		share, own := c.limit(e, left)
		what, err := c.try(e, share, own)
		switch what {
		case finished:
			return err
		case noRoom:
			c.full = append(c.full, e)
		}
	}
}

// next is the endpoint to dial, nil if there is none left in this round, and how many are left with it. It needs the
// lock.
func (c *checkout) next() (e *endpoint, left int) {
	consider := func(o *endpoint) {
		if t, ok := c.tried[o]; ok && t.revived == o.revived {
			return
		}
		if left++; e == nil {
			e = o
		}
	}
	currentFirst := c.current.usable(c.rules.target) && !c.current.silent && !c.rules.balances()
	if currentFirst {
		consider(c.current)
	}
	for _, o := range c.ranked() {
		if o != c.current || !currentFirst {
			consider(o)
		}
	}
	if e != nil {
		return e, left
	}
	// Nobody else finds out whether those that aren't probed are back.
	for _, o := range c.endpoints {
		if !o.watched && !o.barred && !o.was && o.state != Misconfigured {
			consider(o)
		}
	}
	if e != nil || c.lostAt.IsZero() {
		return e, left
	}
	for _, o := range c.endpoints {
		if o.state == Misconfigured && !o.barred && !c.asked[o] {
			consider(o)
		}
	}
	return e, left
}

// hopeless: all refuse us, which no waiting will mend. It needs the lock.
func (c *checkout) hopeless() bool {
	for _, e := range c.endpoints {
		if e.state != Misconfigured && !e.barred {
			return false
		}
	}
	return true
}

// queue waits for a turn to dial. It answers false when things have changed meanwhile.
func (c *checkout) queue(e *endpoint, changed <-chan struct{}) (bool, error) {
	c.mu.Lock()
	scout, left := c.behind(e)
	c.mu.Unlock()
	if scout != nil {
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-scout:
			return false, nil
		case <-changed:
			return false, nil
		case <-c.done:
			return false, ErrClosed
		case <-c.ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			return false, c.ended(e, c.ctx.Err(), c.ctx.Err())
		}
	}
	select {
	case e.slots <- struct{}{}:
		return true, nil
	default:
	}
	select {
	case e.slots <- struct{}{}:
	case <-changed:
		return false, nil
	case <-c.done:
		return false, ErrClosed
	case <-c.ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return false, c.ended(e, c.ctx.Err(), c.ctx.Err())
	}
	select {
	case <-changed:
		<-e.slots
		return false, nil
	default:
		return true, nil
	}
}

// behind is what to wait for when another checkout's dial has its head start, and for how long at most; else nil, and this
// one may be it. It needs the lock.
func (c *checkout) behind(e *endpoint) (scout <-chan struct{}, left time.Duration) {
	switch {
	case e.fresh:
		return nil, 0
	case e.scout == nil:
		e.scout, e.scoutAt = make(chan struct{}), time.Now()
		return nil, 0
	}
	if left = headStart - time.Since(e.scoutAt); left <= 0 {
		return nil, 0
	}
	return e.scout, left
}

// limit is the time for a dial (0: no limit), and what its passing means: errLimit when it is all that connect_timeout
// grants, errShare when it was cut short, errGrace when it was cut shorter still for a suspect endpoint.
func (c *checkout) limit(e *endpoint, left int) (time.Duration, error) {
	limit, means := max(0, c.opts.ConnectTimeout), errLimit
	if left < 2 {
		return limit, means
	}
	if end := c.end(); !end.IsZero() {
		if share := max(1, time.Until(end)/time.Duration(left)); limit == 0 || share < limit {
			limit, means = share, errShare
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.state == Suspect && e.watched && !c.patient && c.stands(e) {
		if grace := max(leastGrace, min(4*e.response, mostGrace)); limit == 0 || grace < limit {
			limit, means = grace, errGrace
		}
	}
	return limit, means
}

// end is when the checkout's time is up that the dials share: the first of its context's deadline, FailoverTimeout, and when whoever it
// is for gives up, as far as they are still to come; zero: never.
func (c *checkout) end() (end time.Time) {
	deadline, _ := c.ctx.Deadline()
	for _, at := range []time.Time{deadline, c.until, c.began.Add(c.opts.FailoverTimeout)} {
		if time.Now().Before(at) && (end.IsZero() || at.Before(end)) {
			end = at
		}
	}
	return end
}

// stands says that another endpoint can stand in for a suspect one until a probe has settled what it is. One that is less fit
// can't, nor one that is written to on the same timeline: that would split the data for a moment's slowness. It needs the lock.
func (c *checkout) stands(in *endpoint) bool {
	t := c.rules.target
	for _, e := range c.endpoints {
		if e != in && e.state == Up && !e.full && e.usable(t) && e.preference(t) <= in.preference(t) &&
			!sameWriter(e.candidate, in.candidate) {
			return true
		}
	}
	return false
}

// over is called when a dial has ended. It needs the lock.
func (c *checkout) over(a *attempt) {
	delete(c.dials, a)
	if e := a.endpoint; e.scout != nil {
		close(e.scout)
		e.scout = nil
	}
}

// try dials, with a slot in hand that it gives back.
func (c *checkout) try(e *endpoint, most time.Duration, means error) (outcome, error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	a := &attempt{group: c.Group, endpoint: e, cancel: cancel, last: c.patient, picky: c.picky}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		cancel(ErrClosed)
		<-e.slots
		return finished, ErrClosed
	}
	a.verdicts = e.verdicts
	e.lent = true
	c.dials[a] = struct{}{}
	to := e.route()
	c.mu.Unlock()

	dialCtx := context.WithValue(ctx, attemptKey{}, a)
	stop := func() {}
	panicked := true
	defer func() {
		if panicked {
			stop()
			cancel(nil)
			c.mu.Lock()
			c.over(a)
			c.unlock()
		}
		<-e.slots // what was learnt is known before the next in the queue has its turn
	}()
	if most > 0 {
		dialCtx, stop = limit.New(dialCtx, most)
	}
	err := c.dial(dialCtx, to)
	cause := context.Cause(ctx)
	if limit.Passed(dialCtx) {
		cause = means
	}
	stop()
	cancel(nil)
	panicked = false

	c.mu.Lock()
	defer c.unlock()
	c.over(a)
	if err == nil {
		c.succeeded(a)
		return finished, nil
	}
	return c.failed(a, err, cause)
}

// succeeded needs the lock.
func (c *checkout) succeeded(a *attempt) {
	e := a.endpoint
	e.fresh = true
	c.goTo(nil)
	e.load.Add(1)
	c.owed = max(0, c.owed-1)
	c.reached(a)
}

// reached: the server answered, and let us in. It needs the lock.
func (c *checkout) reached(a *attempt) {
	e := a.endpoint
	if e.watched && e.state == Down && e.verdicts != a.verdicts {
		// A probe has found it down since the dial began. One connection made it; the next probe says for the others.
		c.poke(e)
	} else {
		e.up()
	}
	c.settle()
}

// failed says what a failed dial means. It needs the lock.
func (c *checkout) failed(a *attempt, err, cause error) (outcome, error) {
	e := a.endpoint
	c.tried[e] = trial{err: err, revived: e.revived}
	var theirs *usercode.Error
	switch ctxErr := c.ctx.Err(); {
	case errors.Is(cause, ErrClosed) || c.closed:
		return finished, ErrClosed
	case a.refusal != nil:
		return c.refusedBy(a)
	case cause != errAbandoned && errors.As(err, &theirs):
		if theirs.Next {
			return goOn, err
		}
		return finished, err
	case ctxErr != nil:
		if errors.Is(ctxErr, context.DeadlineExceeded) {
			e.suspect()
			c.settle()
			c.poke(e)
		}
		return finished, c.ended(e, err, ctxErr)
	case cause == errAbandoned:
		t := trial{err: cause, revived: e.revived, early: true}
		if e.lastErr != nil { // it may have come back already
			t.err = e.lastErr
		}
		c.tried[e] = t
		return goOn, err
	case cause == errShare, cause == errGrace:
		c.cutShort(a, cause)
		return goOn, err
	case cause == errLimit:
		return c.met(e, TimedOut, fmt.Errorf("%w of %v: %w", errLimit, c.opts.ConnectTimeout, err), err), err
	default:
		return c.met(e, Classify(err), err, err), err
	}
}

// met says what follows from a dial's own error, and from err, which may say more. It needs the lock.
func (c *checkout) met(e *endpoint, ev Evidence, err, own error) outcome {
	what := goOn
	c.tried[e] = trial{err: err, revived: e.revived}
	switch effectOf(fromDial, ev) {
	case down:
		c.down(e, err)
		e.dialErr = own
		close(e.dialFailed)
		e.dialFailed = make(chan struct{})
		if e.watched {
			c.probeBy(e, time.Now().Add(jittered(firstRetry)))
		}
	case suspectNow:
		e.suspect()
		c.poke(e)
	case probeNow:
		c.poke(e)
	case alive:
		e.up()
	case full:
		e.crowded(err)
		what = noRoom
	case misconfigured:
		c.refused(e, err)
		c.asked[e] = true
	case nothing:
		if ev == Local {
			what = noRoom
		}
	}
	c.settle()
	if e.state == Down && ev == TimedOut && c.lostAt.IsZero() {
		c.abandon(e) // those that dial it too needn't wait as long to find out
	}
	return what
}

// refusedBy goes on after Admit has turned a connection down. It needs the lock.
func (c *checkout) refusedBy(a *attempt) (outcome, error) {
	c.reached(a)
	c.tried[a.endpoint] = trial{err: a.refusal, revived: a.endpoint.revived}
	if a.spurned {
		c.picky = false
		delete(c.tried, a.endpoint)
		return goOn, a.refusal
	}
	if c.single() {
		return finished, c.failLocked(nil)
	}
	return goOn, a.refusal
}

// cutShort goes on after a dial that was given less than connect_timeout: the caller's deadline in disguise, so no more
// than suspicion; unless no probe will ever settle that, and it had been suspect before. It needs the lock.
func (c *checkout) cutShort(a *attempt, cause error) {
	e := a.endpoint
	c.tried[e] = trial{err: cause, revived: e.revived, early: cause == errGrace}
	switch {
	case cause == errGrace && e.state == Up:
		delete(c.tried, e) // it answered something else meanwhile: dial it again
	case !e.watched && e.state == Suspect:
		c.down(e, cause)
	case cause == errGrace && e.state == Suspect:
		e.silent = true
	default:
		e.suspect()
		c.poke(e)
	}
	c.settle()
}

// wait waits until things have changed, or for the next round.
func (c *checkout) wait(changed <-chan struct{}) error {
	budget := c.opts.FailoverTimeout - time.Since(c.began)
	if budget <= 0 || c.opts.FailoverRetryAttempts > 0 && c.rounds >= c.opts.FailoverRetryAttempts {
		return c.fail(nil)
	}
	c.waited = true
	c.mu.Lock()
	c.hasten()
	c.waiting++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.waitedAt = time.Now()
		c.mu.Unlock()
	}()

	delay := c.opts.FailoverRetryDelay
	timer := time.NewTimer(min(budget, delay-rand.N(delay/2+1)))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
		if time.Since(c.began) >= c.opts.FailoverTimeout {
			return c.fail(nil)
		}
		c.rounds++
		clear(c.tried)
		clear(c.looked)
	case <-c.done:
		return ErrClosed
	case <-c.ctx.Done():
		return c.fail(c.ctx.Err())
	}
	return nil
}

// backOff waits before the servers without room are asked again.
func (c *checkout) backOff() error {
	budget := c.opts.FailoverTimeout - time.Since(c.began)
	if budget <= 0 {
		return c.fail(nil)
	}
	delay := busyAtMost
	if c.busy < 6 {
		delay = min(delay, firstBusy<<c.busy)
	}
	c.busy++
	timer := time.NewTimer(min(budget, delay-rand.N(delay/2)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.done:
		return ErrClosed
	case <-c.ctx.Done():
		return c.fail(c.ctx.Err())
	}
	if time.Since(c.began) >= c.opts.FailoverTimeout {
		return c.fail(nil)
	}
	for _, e := range c.full {
		delete(c.tried, e)
	}
	c.full = nil
	return nil
}

// ended is the error of a checkout whose context ended during a dial, or waiting for one. When nothing else went wrong
// before, it is just that. It needs the lock.
func (c *checkout) ended(e *endpoint, err, ctxErr error) error {
	if c.waited || len(c.tried) > 1 {
		return c.failLocked(ctxErr)
	}
	if errors.Is(err, ctxErr) {
		return err
	}
	return fmt.Errorf("managedpg: pool %q: dialling %s: %w: %w", c.opts.Pool, e.name, ctxErr, err)
}

// fail is the error of a checkout that found no endpoint.
func (c *checkout) fail(ctxErr error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failLocked(ctxErr)
}

// failLocked needs the lock.
func (c *checkout) failLocked(ctxErr error) error {
	n := &NoEndpointError{Pool: c.opts.Pool, Waited: time.Since(c.began), Err: ctxErr}
	for _, e := range c.listed() {
		if e.gone {
			continue
		}
		entry := EndpointError{Endpoint: e.name, State: e.state, Reason: strings.TrimPrefix(c.whyNot(e), string(e.state)+": "), Err: e.lastErr}
		if t, ok := c.tried[e]; ok {
			entry.Err = t.err
			if !e.fenced && e.admitted {
				entry.Reason = redact(t.err.Error())
			}
		}
		if entry.Reason == "" {
			entry.Reason = "usable, but not reached in time"
		}
		n.Endpoints = append(n.Endpoints, entry)
	}
	return n
}
