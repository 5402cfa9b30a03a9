package failover

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// attempt is one dial under way. Its context carries it to Admit.
type attempt struct {
	group        *Group
	endpoint     *endpoint
	cancel       context.CancelCauseFunc
	began        time.Time
	verdicts     int   // the endpoint's when the dial began
	last         bool  // there is nobody else to ask
	wantsFittest bool  // see checkout
	outranked    bool  // it was turned down for that
	refusal      error // what Admit answered
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
	case e.watched && (e.badAt.After(a.began) && !g.singleLocked() || e.overtakenLocked(a.began, o, g.rules.target)):
		g.doubtLocked(e, a.began, o)
		g.pokeLocked(e)
	case !e.watched, e.lastCheck.IsZero(), admits && !shut:
		g.observeLocked(e, o)
	default:
		// Behind a proxy this may be another server than the one the others lead to: only a probe decides for them.
		g.pokeLocked(e)
	}
	if promoted {
		g.pokeLocked(e) // the sooner its timeline is known, the sooner an old writer is fenced
	}
	switch {
	case shut:
		a.refusal = &ineligibleError{e.name, g.whyFencedLocked(o)}
	case !admits:
		a.refusal = &ineligibleError{e.name, g.whyNotAdmitted(o)}
	case a.wantsFittest && g.fitterThanLocked(e, o):
		a.refusal, a.outranked = &ineligibleError{e.name, "another one is, or may be, fitter"}, true
	}
	g.settleLocked()
	return a.refusal
}

// Fenced is why a server must not be written to, and why what it has committed of late isn't what will last; nil if it isn't fenced.
func (g *Group) Fenced(o Observation) error {
	g.mu.Lock()
	defer g.unlock()
	if !g.fence.shuts(o) {
		return nil
	}
	return errors.New(g.whyFencedLocked(o))
}

// ineligibleError is Admit's answer to a connection that must not be used.
type ineligibleError struct{ endpoint, why string }

func (e *ineligibleError) Error() string { return fmt.Sprintf("managedpg: %s: %s", e.endpoint, e.why) }
