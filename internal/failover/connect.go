package failover

import (
	"context"
	"errors"
	"time"
)

const (
	// leastGrace is what a suspect endpoint gets for a dial at least when another is usable; it gets four times what its
	// last good probe took if that is more, up to mostGrace. A probe is under way too: once that was answered, a dial gets
	// its full time.
	leastGrace = 10 * time.Millisecond
	mostGrace  = 50 * time.Millisecond
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
		looked:       make(map[*host]bool),
		wantsFittest: g.rules.balances(),
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

	rounds       int                 // over all endpoints, begun
	waited       bool                // for one to become usable
	tried        map[*endpoint]trial // this round's
	looked       map[*host]bool      // whose names were looked up in this round
	asked        map[*endpoint]bool  // misconfigured ones, asked once in all
	busy         int                 // rounds in a row in which a server had no room
	full         []*endpoint         // this round's that had none
	patient      bool                // nobody else is left: suspects get their full time
	bound        *endpoint           // where the next dial leads to
	wantsFittest bool                // it has turned nobody down yet in favour of one that is fitter
}

// search is for several endpoints.
func (c *checkout) search() error {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return ErrClosed
		}
		changed := c.changed
		c.goToLocked(nil)
		e, left := c.nextLocked()
		c.goToLocked(e)
		if e == nil {
			hopeless := c.hopelessLocked()
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

// nextLocked is the endpoint to dial, nil if there is none left in this round, and how many are left with it that would do in its place.
func (c *checkout) nextLocked() (e *endpoint, left int) {
	consider := func(o *endpoint) {
		if t, ok := c.tried[o]; ok && t.revived == o.revived {
			return
		}
		if e == nil {
			e = o
		}
		if c.standsInLocked(o, e) {
			left++
		}
	}
	currentFirst := c.current.usable(c.rules.target) && !c.current.silent && !c.rules.balances()
	if currentFirst {
		consider(c.current)
	}
	for _, o := range c.rankedLocked() {
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

// hopelessLocked: all refuse us, which no waiting will mend.
func (c *checkout) hopelessLocked() bool {
	for _, e := range c.endpoints {
		if e.state != Misconfigured && !e.barred {
			return false
		}
	}
	return true
}

// queue waits for a turn to dial. It answers false when things have changed meanwhile.
func (c *checkout) queue(e *endpoint, changed <-chan struct{}) (turn bool, err error) {
	var first <-chan struct{}
	var left time.Duration
	c.mu.Lock()
	if !e.fresh {
		first, left = e.gate.behindLocked()
	}
	c.mu.Unlock()
	if turn, err = e.gate.follow(c.ctx, first, left, changed, c.done); turn {
		turn, err = e.gate.enter(c.ctx, changed, c.done)
	}
	if err != nil && err != ErrClosed {
		c.mu.Lock()
		defer c.mu.Unlock()
		err = c.endedLocked(e, err, err)
	}
	return turn, err
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
	if e.state == Suspect && e.watched && !c.patient && c.standsLocked(e) {
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

// standsInLocked says that an endpoint will do in another's place for a caller in a hurry. With any no standby does in a primary's: no write is
// to meet one because the caller of some dial had little time.
func (c *checkout) standsInLocked(e, in *endpoint) bool {
	t := c.rules.target
	return !in.usable(t) || e.usable(t) && (t != targetAny || e.preference(t) <= in.preference(t))
}

// standsLocked says that another endpoint can stand in for a suspect one until a probe has settled what it is. One that is less fit
// can't, nor one that is written to on the same timeline: that would split the data for a moment's slowness.
func (c *checkout) standsLocked(in *endpoint) bool {
	t := c.rules.target
	for _, e := range c.endpoints {
		if e != in && e.state == Up && !e.full && e.usable(t) && e.preference(t) <= in.preference(t) &&
			!sameWriter(e.candidate, in.candidate) {
			return true
		}
	}
	return false
}
