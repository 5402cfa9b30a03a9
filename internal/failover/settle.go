package failover

import (
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// settleLocked draws the consequences of whatever has changed.
func (g *Group) settleLocked() {
	woken := false
	for _, e := range g.endpoints {
		woken = g.reviewLocked(e) || woken
	}
	cs := g.candidatesLocked()
	next, why := g.rules.choose(cs, slices.Index(g.endpoints, g.current))
	switch {
	case next < 0:
		if g.lostAt.IsZero() {
			g.lostAt, g.lostWhy = time.Now(), g.whyNotLocked(g.current)
			// Of misconfigured ones that was said, one by one.
			if slices.ContainsFunc(g.endpoints, func(e *endpoint) bool { return e.state != Misconfigured }) {
				g.logLocked(slog.LevelWarn, "managedpg: no endpoint is usable", "last", g.current.name, "reason", g.lostWhy)
			}
			woken = true
		}
		if g.waiting > 0 {
			g.hastenLocked()
		}
	default:
		e := g.endpoints[next]
		switch {
		case e != g.current:
			g.moveLocked(e, why)
			woken = true
		case !g.lostAt.IsZero():
			g.logLocked(slog.LevelInfo, "managedpg: endpoint is usable again", "endpoint", e.name, "duration", time.Since(g.lostAt))
		}
		g.settled = g.settled || e.state == Up
		g.lostAt, g.hurrying = time.Time{}, time.Time{}
		g.shareLocked(cs)
		g.tidyLocked()
	}
	g.warnOfTwoLocked(cs)
	if woken {
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

// candidatesLocked is what the choice goes by.
func (g *Group) candidatesLocked() []candidate {
	cs := make([]candidate, len(g.endpoints))
	for i, e := range g.endpoints {
		cs[i] = e.candidate
	}
	return cs
}

// reviewLocked sees to one endpoint's connections after a change, and says whether checkouts should look again.
func (g *Group) reviewLocked(e *endpoint) (changed bool) {
	wasAdmitted, wasFenced, was := e.admitted, e.fenced, e.reviewed
	e.reviewed = e.Recovery
	e.admitted = g.rules.target.admits(e.Observation)
	e.fenced = g.fence.shuts(e.Observation)
	usable := e.candidate.usable(g.rules.target)
	switch {
	case e.fenced && !wasFenced:
		g.logLocked(slog.LevelWarn, "managedpg: endpoint is fenced", "endpoint", e.name, "reason", g.whyNotLocked(e))
		g.dropLocked(e, Fenced, g.fence.highest[e.SystemID].timeline, g.whyNotLocked(e))
	case !e.admitted && wasAdmitted && !(was == NotInRecovery && e.Recovery == InRecovery):
		// A server that has changed its role keeps its sessions. No primary becomes a standby without a restart, which ends
		// them: then this is another server than the one that they lead to, behind the same address.
		g.drainLocked(e)
	case !e.mixed && g.rules.target == targetPreferStandby && was == NotInRecovery && e.Recovery == InRecovery:
		// For the same reason its connections lead to a primary, which isn't what is preferred here. An address that leads to all
		// servers in turn would lose its connections again and again.
		g.drainLocked(e)
	}
	if !usable {
		e.good = 0
	}
	if usable && (!e.was || e.state == Up && e.shown == Suspect) {
		e.revived++
	}
	changed = usable != e.was || e.state != e.shown
	e.was, e.shown = usable, e.state
	return changed
}

// moveLocked makes another endpoint the current one. Without a why the one used before has become unusable.
func (g *Group) moveLocked(to *endpoint, why string) {
	now := time.Now()
	from := g.current
	forced := why == ""
	kind := Failback
	if forced || !g.lostAt.IsZero() {
		kind = Failover
	}
	switch {
	case !g.lostAt.IsZero():
		why = g.lostWhy
	case forced:
		why = g.whyNotLocked(from)
	}
	// Finding out at the start that the first endpoint has another role than the one wanted is no failover.
	// Nor is going from one address to the next.
	// Nor is finding out that another one is fitter, where connections are spread.
	quiet := !forced && g.rules.balances() && g.lostAt.IsZero() && g.moves.failovers == 0 ||
		forced && !g.settled && (from.state != Down && from.state != Misconfigured || from.host == to.host)
	e := Event{Kind: kind, At: now, From: from.name, To: to.name, Reason: why}
	if !g.lostAt.IsZero() {
		e.Duration = now.Sub(g.lostAt)
	}
	g.current = to
	if !quiet {
		g.recordLocked(e)
	}
}

// recordLocked counts an event and tells of it.
func (g *Group) recordLocked(e Event) {
	level := slog.LevelInfo
	if e.Kind == Failover {
		level = slog.LevelWarn
		g.moves.failovers++
		g.lastFailover = e.At
	} else {
		g.moves.failbacks++
	}
	g.events = appendBounded(g.events, e, keptEvents)
	g.logLocked(level, "managedpg: "+string(e.Kind), "from", e.From, "to", e.To, "reason", e.Reason, "duration", e.Duration)
	if tell := g.opts.OnFailover; tell != nil {
		g.out.tell(func() { tell(e) })
	}
}

// tidyLocked drains the endpoints that are not current and have connections all the same: those of before a failover or a failback, and
// of checkouts that went elsewhere while the current one was suspect; and has stuck calls on a hung one closed. A suspect
// current endpoint may be about to be left, so connections elsewhere are kept until that is settled; those to a full server
// couldn't be had again.
func (g *Group) tidyLocked() {
	for _, e := range g.endpoints {
		switch {
		case e.shares:
		case e.state == Down && e.unanswered >= 2 && e.unanswered != e.stuckAt:
			e.stuckAt = e.unanswered
			g.stuckLocked(e)
		case g.rules.balances() && e.state == Suspect:
		case e.fresh && !e.full && g.current.state == Up:
			g.drainLocked(e)
		}
	}
}

// warnOfTwoLocked says once that two servers can be written to on one timeline.
func (g *Group) warnOfTwoLocked(cs []candidate) {
	if g.twoSaid {
		return
	}
	for i, a := range cs {
		for j, b := range cs[:i] {
			if a.state == Up && b.state == Up && sameWriter(a, b) {
				g.twoSaid = true
				g.logLocked(slog.LevelError, "managedpg: two endpoints accept writes on one timeline; unless both lead to one server the data is splitting",
					"endpoint", g.endpoints[j].name, "other", g.endpoints[i].name, "timeline", a.Timeline, "using", g.current.name)
				return
			}
		}
	}
}

// dropLocked ends an endpoint's connections.
func (g *Group) dropLocked(e *endpoint, kind DropKind, below int64, detail string) {
	e.Epoch.Add(1)
	e.fresh = false
	if lent, f := e.lent, g.opts.Drop; lent && f != nil {
		reason := &DropError{Endpoint: e.name, Kind: kind, Detail: detail}
		g.out.post(func() { f(e.number, below, reason) })
	}
}

// drainLocked ends an endpoint's connections as they are checked in.
func (g *Group) drainLocked(e *endpoint) {
	e.Epoch.Add(1)
	e.fresh = false
	if f := g.opts.Drain; e.lent && f != nil {
		g.out.post(func() { f(e.number) })
	}
}

// stuckLocked has the calls closed that hang on an endpoint.
func (g *Group) stuckLocked(e *endpoint) {
	if f := g.opts.Stuck; e.lent && f != nil {
		since := e.silentSince
		reason := &DropError{Endpoint: e.name, Kind: Hung, Detail: fmt.Sprintf("%d probes in a row were not answered", e.unanswered)}
		g.out.post(func() { f(e.number, since, reason) })
	}
}

func appendBounded[T any](list []T, item T, limit int) []T {
	if len(list) == limit {
		copy(list, list[1:])
		list[limit-1] = item
		return list
	}
	return append(list, item)
}
