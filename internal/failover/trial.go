package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/internal/limit"
	"github.com/managedpg/managedpg/internal/usercode"
)

// trial is a dial that failed.
type trial struct {
	err     error
	revived int  // the endpoint's then: once it becomes usable anew, it is worth another dial
	early   bool // it was ended before its time, for the sake of other endpoints or of a caller
}

// outcome is what follows from a dial.
type outcome int

const (
	finished outcome = iota // with or without an error
	goOn                    // with the next endpoint
	noRoom                  // the same, and when none is left wait, and ask this one again
)

// overLocked is called when a dial has ended.
func (c *checkout) overLocked(a *attempt) {
	delete(c.dials, a)
	a.endpoint.gate.overLocked()
}

// try dials, and leaves the gate.
func (c *checkout) try(e *endpoint, most time.Duration, means error) (outcome, error) {
	ctx, cancel := context.WithCancelCause(c.ctx)
	a := &attempt{group: c.Group, endpoint: e, began: time.Now(), cancel: cancel, last: c.patient, wantsFittest: c.wantsFittest}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		cancel(ErrClosed)
		e.gate.leave()
		return finished, ErrClosed
	}
	a.verdicts = e.verdicts
	e.lent = true
	c.dials[a] = struct{}{}
	to := c.routeLocked(e)
	c.mu.Unlock()

	dialCtx := context.WithValue(ctx, attemptKey{}, a)
	stop := func() {}
	panicked := true
	defer func() {
		if panicked {
			stop()
			cancel(nil)
			c.mu.Lock()
			c.overLocked(a)
			c.unlock()
		}
		e.gate.leave() // what was learnt is known before the next in the queue has its turn
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
	c.overLocked(a)
	if err == nil {
		c.succeededLocked(a)
		return finished, nil
	}
	return c.failedLocked(a, err, cause)
}

// succeededLocked says what a dial means that succeeded.
func (c *checkout) succeededLocked(a *attempt) {
	e := a.endpoint
	e.fresh = true
	c.goToLocked(nil)
	e.Load.Add(1)
	c.owed = max(0, c.owed-1)
	c.reachedLocked(a)
}

// reachedLocked: the server answered, and let us in.
func (c *checkout) reachedLocked(a *attempt) {
	e := a.endpoint
	if c.outdatedLocked(a) {
		c.pokeLocked(e) // one connection made it; the next probe says for the others
	} else {
		e.upLocked()
	}
	c.settleLocked()
}

// outdatedLocked says of a dial that the server answered that a probe has found it down since it began, or something made it suspect.
func (c *checkout) outdatedLocked(a *attempt) bool {
	e := a.endpoint
	return e.watched && (e.state == Down && e.verdicts != a.verdicts || e.state == Suspect && e.badAt.After(a.began) && !c.singleLocked())
}

// failedLocked says what a failed dial means.
func (c *checkout) failedLocked(a *attempt, err, cause error) (outcome, error) {
	e := a.endpoint
	c.tried[e] = trial{err: err, revived: e.revived}
	var theirs *usercode.Error
	switch ctxErr := c.ctx.Err(); {
	case errors.Is(cause, ErrClosed) || c.closed:
		return finished, ErrClosed
	case a.refusal != nil:
		return c.refusedByLocked(a)
	case cause != errAbandoned && errors.As(err, &theirs):
		if theirs.Next {
			return goOn, err
		}
		return finished, err
	case ctxErr != nil:
		if errors.Is(ctxErr, context.DeadlineExceeded) {
			e.suspectLocked()
			c.settleLocked()
			c.pokeLocked(e)
		}
		return finished, c.endedLocked(e, err, ctxErr)
	case cause == errAbandoned:
		t := trial{err: cause, revived: e.revived, early: true}
		if e.lastErr != nil { // it may have come back already
			t.err = e.lastErr
		}
		c.tried[e] = t
		return goOn, err
	case cause == errShare, cause == errGrace:
		c.cutShortLocked(a, cause)
		return goOn, err
	case cause == errLimit:
		return c.metLocked(a, evidence.TimedOut, fmt.Errorf("%w of %v: %w", errLimit, c.opts.ConnectTimeout, err), err), err
	default:
		return c.metLocked(a, evidence.Of(err), err, err), err
	}
}

// metLocked says what follows from a dial's own error, and from err, which may say more.
func (c *checkout) metLocked(a *attempt, ev evidence.Kind, err, own error) outcome {
	e, what := a.endpoint, goOn
	c.tried[e] = trial{err: err, revived: e.revived}
	effect := effectOf(fromDial, ev)
	if effect == full {
		what = noRoom
	}
	if (effect == full || effect == alive) && c.outdatedLocked(a) {
		effect = probeNow
	}
	switch effect {
	case down:
		e.badAt = time.Now()
		c.downLocked(e, err)
		e.gate.downLocked(own)
		if e.watched {
			c.probeByLocked(e, time.Now().Add(jittered(firstRetry)))
		}
	case suspectNow:
		e.suspectLocked()
		c.pokeLocked(e)
	case probeNow:
		c.pokeLocked(e)
	case alive:
		e.upLocked()
	case full:
		e.crowdedLocked(err)
	case misconfigured:
		c.refusedLocked(e, err)
		c.asked[e] = true
	case nothing:
		if ev == evidence.Local {
			what = noRoom
		}
	}
	c.settleLocked()
	if e.state == Down && ev == evidence.TimedOut && c.lostAt.IsZero() {
		c.abandonLocked(e) // those that dial it too needn't wait as long to find out
	}
	return what
}

// refusedByLocked goes on after Admit has turned a connection down. Where that was for a role that the endpoint isn't known for, a probe is
// on its way that decides. Until then it isn't taken for well: the connections to where others went meanwhile would be closed for it.
func (c *checkout) refusedByLocked(a *attempt) (outcome, error) {
	if e := a.endpoint; a.outranked || !e.admitted || e.fenced {
		c.reachedLocked(a)
	}
	c.tried[a.endpoint] = trial{err: a.refusal, revived: a.endpoint.revived}
	if a.outranked {
		c.wantsFittest = false
		delete(c.tried, a.endpoint)
		return goOn, a.refusal
	}
	if c.singleLocked() {
		return finished, c.failLocked(nil)
	}
	return goOn, a.refusal
}

// cutShortLocked goes on after a dial that was given less than connect_timeout: the caller's deadline in disguise, so no more
// than suspicion; unless no probe will ever settle that, and it had been suspect before.
func (c *checkout) cutShortLocked(a *attempt, cause error) {
	e := a.endpoint
	hurried := time.Now().Before(c.until) // for the sake of somebody who will have given up soon
	c.tried[e] = trial{err: cause, revived: e.revived, early: cause == errGrace || hurried}
	if hurried {
		c.wantsFittest = false // there is no time for another dial
	}
	switch {
	case cause == errGrace && e.state == Up:
		delete(c.tried, e) // it answered something else meanwhile: dial it again
	case !e.watched && e.state == Suspect && !hurried:
		c.downLocked(e, cause)
	case cause == errGrace && e.state == Suspect:
		e.silent = true
	default:
		e.suspectLocked()
		c.pokeLocked(e)
	}
	c.settleLocked()
}
