package failover

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// balanceEvery is how often the members' shares are compared.
	balanceEvery = 250 * time.Millisecond
	// awaitEvery is how often, at least, those are looked for that are to get a share: a member that is down is probed, and the names are
	// looked up for new addresses. So they have it within seconds, whatever health_check_interval is.
	awaitEvery = 2 * time.Second
	// A connection more or less than another member has is no matter for balance.
	tolerance = 2
	// fewShed, or a fewShedOf-th of the connections if that is more, are shed at most before dials have made up for them: a pool
	// that nobody uses keeps the others.
	fewShed   = 2
	fewShedOf = 8
)

// balances says that connections are spread. A writer that is wanted is one.
func (r rules) balances() bool { return r.random && !r.target.wantsWriter() }

// shares are the usable endpoints that get connections, the best first: all that are as fit as the best one where connections are
// spread, else that one. Of servers that are written to on one timeline it is one, the current one if it is among them: to write to
// both could split the data.
func (r rules) shares(cs []candidate, current int) []int {
	ranked := order(r.target, cs)
	if len(ranked) == 0 || !r.balances() {
		return ranked[:min(1, len(ranked))]
	}
	best := cs[ranked[0]].weight(r.target)
	fit := slices.DeleteFunc(ranked, func(i int) bool { return cs[i].weight(r.target) != best })
	if at := slices.Index(fit, current); at > 0 {
		fit = slices.Insert(slices.Delete(fit, at, at+1), 0, current)
	}
	var shares []int
	for _, i := range fit {
		if !slices.ContainsFunc(shares, func(j int) bool { return sameWriter(cs[i], cs[j]) }) {
			shares = append(shares, i)
		}
	}
	return shares
}

// shareLocked notes which endpoints get connections.
func (g *Group) shareLocked(cs []candidate) {
	for _, e := range g.endpoints {
		e.shares = e == g.current
	}
	if g.rules.balances() {
		for _, i := range g.rules.shares(cs, slices.Index(g.endpoints, g.current)) {
			g.endpoints[i].shares = true
		}
	}
}

// rankedLocked are the usable endpoints, the best first; where connections are spread, of those that share them the one with the fewest, and of
// several such any.
func (g *Group) rankedLocked() []*endpoint {
	cs := g.candidatesLocked()
	var ranked []*endpoint
	if g.rules.balances() {
		for _, i := range g.rules.shares(cs, slices.Index(g.endpoints, g.current)) {
			ranked = append(ranked, g.endpoints[i])
		}
		rand.Shuffle(len(ranked), func(i, j int) { ranked[i], ranked[j] = ranked[j], ranked[i] })
		slices.SortStableFunc(ranked, func(a, b *endpoint) int { return a.connectionsLocked() - b.connectionsLocked() })
	}
	for _, i := range order(g.rules.target, cs) {
		if e := g.endpoints[i]; !slices.Contains(ranked, e) {
			ranked = append(ranked, e)
		}
	}
	return ranked
}

// connectionsLocked are those that there are, and those on their way.
func (e *endpoint) connectionsLocked() int { return int(e.Load.Load()) + e.coming }

// goToLocked notes where the checkout's next dial leads to, so that others choose by it; nil: nowhere.
func (c *checkout) goToLocked(e *endpoint) {
	if c.bound != nil {
		c.bound.coming--
	}
	if c.bound = e; e != nil {
		e.coming++
	}
}

// arrived ends a checkout's way.
func (c *checkout) arrived() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.goToLocked(nil)
}

// fitterThanLocked says that another usable endpoint is fitter than e as it was just seen, or may be, as nobody has asked it yet.
func (g *Group) fitterThanLocked(e *endpoint, o Observation) bool {
	t := g.rules.target
	seen := candidate{Observation: o, state: Up}
	return slices.ContainsFunc(g.endpoints, func(other *endpoint) bool {
		return other != e && other.usable(t) && other.weight(t) < seen.weight(t)
	})
}

// balance has connections closed where there are too many, until Close.
func (g *Group) balance() {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	for {
		select {
		case <-g.done:
			return
		case <-tick.C:
			g.mu.Lock()
			g.shedLocked()
			g.lookForMoreLocked()
			g.unlock()
		}
	}
}

// lookForMoreLocked has the names looked up whose last answer is old.
func (g *Group) lookForMoreLocked() {
	if g.closed {
		return
	}
	for _, h := range g.hosts {
		if h.Lookup != nil && g.opts.HealthCheck && h.looking == nil && time.Since(h.lookedAt) >= awaitEvery {
			g.beginLookupLocked(context.Background(), h)
		}
	}
}

// shedLocked has a few connections closed, as they are checked in, of members that have more than their share while another one has less. Those
// that nobody has checked in since the last time are chosen anew, as some members' may all be held for long.
func (g *Group) shedLocked() {
	for _, e := range g.endpoints {
		g.owed = max(0, g.owed-int(e.Surplus.Swap(0)))
	}
	var members []*endpoint
	total, least := 0, 0
	for _, e := range g.endpoints {
		if !e.shares || e.state != Up {
			continue
		}
		n := e.connectionsLocked()
		if total += n; len(members) == 0 || n < least {
			least = n
		}
		members = append(members, e)
	}
	if len(members) < 2 || g.opts.Shed == nil {
		return
	}
	fair := (total + len(members) - 1) / len(members)
	few := max(fewShed, total/fewShedOf) - g.owed
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	for _, e := range members {
		n := e.connectionsLocked()
		surplus := min(n-fair, few)
		if surplus <= 0 || n-least <= tolerance && (least > 0 || n < 2) {
			continue
		}
		few -= surplus
		g.owed += surplus
		e.Surplus.Store(int64(surplus))
		g.out.post(func() { g.opts.Shed(e.number, surplus) })
	}
}
