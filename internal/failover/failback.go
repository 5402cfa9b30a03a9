package failover

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Failback moves to the best usable endpoint at once, whatever Failback and FailbackAfter say; connections to the one
// used so far are closed as they are checked in. The endpoints are probed first; one that can't be probed is taken at
// the caller's word. It answers nil when the best one is in use already, and an error saying why when a better one can't
// be used. It is the way back to an endpoint that is a second writer on the current one's timeline, which no rule moves
// to by itself.
func (g *Group) Failback(ctx context.Context) error {
	if len(g.hosts) == 0 {
		return nil
	}
	g.checkAll(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.unlock()
	if g.closed {
		return ErrClosed
	}
	for _, e := range g.endpoints {
		if e.host.Probe == nil && (e.state == Down || e.state == Misconfigured) {
			e.state = Unknown
		}
	}
	g.settleLocked()
	best := order(g.rules.target, g.candidatesLocked())
	if len(best) == 0 {
		c := &checkout{Group: g, began: time.Now()}
		return c.failLocked(nil)
	}
	to := g.endpoints[best[0]]
	if g.current.asGoodAs(to.candidate, g.rules.target) || g.rules.balances() && g.current.shares {
		to = g.current
	}
	if to != g.current {
		g.moveLocked(to, "asked for")
		g.settleLocked()
		return nil
	}
	var better []string
	for _, e := range g.endpoints[:best[0]] {
		if !e.usable(g.rules.target) && !e.barred {
			better = append(better, e.name+" "+g.whyNotLocked(e))
		}
	}
	if better == nil {
		return nil
	}
	return fmt.Errorf("managedpg: pool %q: staying with %s: %s", g.opts.Pool, g.current.name, strings.Join(better, "; "))
}
