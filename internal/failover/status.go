package failover

import (
	"slices"
	"strings"
	"time"
)

// checks counts the probes of an endpoint.
type checks struct {
	total, failed int64
	goodTime      time.Duration // of those that succeeded, together
}

func (c checks) since(reset checks) checks {
	return checks{c.total - reset.total, c.failed - reset.failed, c.goodTime - reset.goodTime}
}

func (c checks) plus(d checks) checks {
	return checks{c.total + d.total, c.failed + d.failed, c.goodTime + d.goodTime}
}

func (c checks) successRate() float64 {
	if c.total == 0 {
		return 100
	}
	return 100 * float64(c.total-c.failed) / float64(c.total)
}

// moves counts the changes of the current endpoint.
type moves struct{ failovers, failbacks int64 }

// listedLocked are the members in an order that stays, unlike the resolver's.
func (g *Group) listedLocked() []*endpoint {
	return slices.SortedStableFunc(slices.Values(g.endpoints), func(a, b *endpoint) int {
		if a.host != b.host {
			return a.host.number - b.host.number
		}
		return a.number - b.number
	})
}

// Health says what is known of the endpoints.
func (g *Group) Health() Health {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.healthLocked(g.departed.since(g.resetDeparted), func(e *endpoint) checks { return e.checks.since(e.resetChecks) })
}

// Totals are Health and Status, with counts that no ResetCounts has set back.
func (g *Group) Totals() (Health, Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.healthLocked(g.departed, func(e *endpoint) checks { return e.checks }), g.statusLocked(moves{})
}

// healthLocked is Health, with counts from where count and sum say.
func (g *Group) healthLocked(sum checks, count func(*endpoint) checks) Health {
	var h Health
	for _, e := range g.listedLocked() {
		c := count(e)
		h.Endpoints = append(h.Endpoints, g.healthOfLocked(e, c))
		sum = sum.plus(c)
	}
	h.TotalChecks, h.FailedChecks, h.SuccessRate = sum.total, sum.failed, sum.successRate()
	if good := sum.total - sum.failed; good > 0 {
		h.ResponseTime = sum.goodTime / time.Duration(good)
	}
	if g.current != nil && g.lostAt.IsZero() {
		h.Healthy = g.current.state == Up
	}
	return h
}

// healthOfLocked is that of one endpoint.
func (g *Group) healthOfLocked(e *endpoint, c checks) EndpointHealth {
	h := EndpointHealth{
		Endpoint: e.name,
		State:    e.state,
		Role:     e.Role,
		Timeline: e.Timeline,
		Fenced:   e.fenced,

		ReplicationLag: e.lag.is, ReplicationLagBytes: g.lagBytesLocked(e), Lagging: e.lagging,

		ResponseTime: e.response,
		LastCheck:    e.lastCheck,
		TotalChecks:  c.total,
		FailedChecks: c.failed,
		SuccessRate:  c.successRate(),
		Note:         g.noteLocked(e),
		History:      slices.Clone(e.history),
	}
	if e.lastErr != nil {
		h.LastError = redact(e.lastErr.Error())
	}
	return h
}

// noteLocked adds what our rules can't do for what the server can't tell.
func (g *Group) noteLocked(e *endpoint) string {
	notes := []string{e.Note}
	if e.Note == "" {
		notes = nil
	}
	if e.gone {
		notes = append(notes, "its name doesn't have this address any more: forgotten once its connections are closed")
	}
	if e.seen && e.Role == RoleUnknown && e.Recovery == RecoveryUnknown {
		notes = append(notes, "role unknown: taken as eligible")
	}
	if e.seen && g.fence.on && !g.alone && !e.known() {
		notes = append(notes, "role, timeline or system identifier unknown: never fenced")
	}
	if g.opts.MaxReplicationLag > 0 && e.Recovery == InRecovery && e.lag.is == lagUnknown && e.checks.total > e.checks.failed {
		notes = append(notes, "replay lag unknown: taken as none")
	}
	if e.host.Note != nil {
		if more := e.host.Note(); more != "" {
			notes = append(notes, more)
		}
	}
	return strings.Join(notes, "; ")
}

// Status says which endpoint is used, and how it came to that.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.statusLocked(g.resetMoves)
}

// statusLocked is Status, with the moves since then.
func (g *Group) statusLocked(since moves) Status {
	s := Status{
		FailoverCount: g.moves.failovers - since.failovers,
		FailbackCount: g.moves.failbacks - since.failbacks,
		LastFailover:  g.lastFailover,
		History:       slices.Clone(g.events),
	}
	for _, e := range g.listedLocked() {
		s.Endpoints = append(s.Endpoints, e.name)
	}
	if g.current != nil && g.lostAt.IsZero() {
		s.Current = g.current.name
		s.IsPrimary = g.current.host.number == 0
	}
	return s
}

// ResetCounts sets the counts of checks, failovers and failbacks to zero. What is known of the endpoints, and the
// histories, stay.
func (g *Group) ResetCounts() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resetMoves, g.resetDeparted = g.moves, g.departed
	for _, e := range g.endpoints {
		e.resetChecks = e.checks
	}
}
