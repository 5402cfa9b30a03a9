package failover

import (
	"fmt"
	"slices"
)

// singleLocked says that there is only one server to go to.
func (g *Group) singleLocked() bool {
	servers := 0
	for _, e := range g.endpoints {
		if !e.barred {
			servers++
		}
	}
	return g.alone && servers < 2
}

func (c *checkout) lonely() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.singleLocked()
}

// round is for a single endpoint: each of its servers is asked once, those that are usable first.
func (c *checkout) round() error {
	for {
		c.mu.Lock()
		c.goToLocked(nil)
		e, left := c.nextAloneLocked()
		c.goToLocked(e)
		c.mu.Unlock()
		if e == nil {
			return c.fail(nil)
		}
		if c.looks(e) {
			if what, err := c.lookUp(e, left); what == finished || err != nil && c.lonely() {
				return err
			}
			continue
		}
		if done, err := c.queueAlone(e); done {
			return err
		}
		share, own := c.limit(e, left)
		if what, err := c.try(e, share, own); what == finished || c.lonely() {
			return err
		}
	}
}

// nextAloneLocked is the server to ask, nil if all have been, and how many are left with it that would do in its place.
func (c *checkout) nextAloneLocked() (e *endpoint, left int) {
	var rest []*endpoint
	consider := func(o *endpoint) {
		if _, asked := c.tried[o]; !asked && !slices.Contains(rest, o) {
			rest = append(rest, o)
		}
	}
	if len(c.endpoints) == 0 {
		return nil, 0
	}
	if c.current.usable(c.rules.target) && !c.current.silent && !c.rules.balances() {
		consider(c.current)
	}
	for _, o := range c.rankedLocked() {
		consider(o)
	}
	for _, o := range c.endpoints {
		if !o.barred {
			consider(o)
		}
	}
	if len(rest) == 0 { // those that were given up early get their full time now
		for _, o := range c.endpoints {
			if t, ok := c.tried[o]; ok && t.early && !o.barred {
				delete(c.tried, o)
				consider(o)
			}
		}
		c.patient = true
	}
	if len(rest) == 0 {
		return nil, 0
	}
	for _, o := range rest {
		if c.standsInLocked(o, rest[0]) {
			left++
		}
	}
	return rest[0], left
}

// queueAlone waits for its turn to dial the only endpoint. When another's dial finds it down meanwhile, that error is
// everybody's: queueing on for a dead server, each for a whole connect_timeout, would take forever.
func (c *checkout) queueAlone(e *endpoint) (done bool, err error) {
	c.mu.Lock()
	down := e.gate.down
	c.mu.Unlock()
	turn, err := e.gate.enter(c.ctx, down, c.done)
	switch {
	case turn:
		return false, nil
	case err == nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		return true, e.gate.downErr
	case err == ErrClosed:
		return true, err
	default:
		return true, fmt.Errorf("managedpg: pool %q: waiting to dial %s: %w", c.opts.Pool, e.name, err)
	}
}
