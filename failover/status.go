package failover

import (
	"slices"
	"strings"
	"time"
)

// Health says what is known of the endpoints.
func (g *Group) Health() Health {
	g.mu.Lock()
	defer g.mu.Unlock()
	var h Health
	var goodTime time.Duration
	for _, e := range g.endpoints {
		h.Endpoints = append(h.Endpoints, g.healthOf(e))
		h.TotalChecks += e.total
		h.FailedChecks += e.failed
		goodTime += e.goodTime
	}
	h.SuccessRate = successRate(h.TotalChecks, h.FailedChecks)
	if good := h.TotalChecks - h.FailedChecks; good > 0 {
		h.ResponseTime = goodTime / time.Duration(good)
	}
	if len(g.endpoints) > 0 && g.lostAt.IsZero() {
		state := g.endpoints[g.current].state
		h.Healthy = state == Up || state == Unknown
	}
	return h
}

// healthOf needs the lock.
func (g *Group) healthOf(e *endpoint) EndpointHealth {
	h := EndpointHealth{
		Endpoint:     e.name,
		State:        e.state,
		Role:         e.Role,
		Timeline:     e.Timeline,
		Fenced:       e.fenced,
		ResponseTime: e.response,
		LastCheck:    e.lastCheck,
		TotalChecks:  e.total,
		FailedChecks: e.failed,
		SuccessRate:  successRate(e.total, e.failed),
		Note:         g.note(e),
		History:      slices.Clone(e.history),
	}
	if e.lastErr != nil {
		h.LastError = redact(e.lastErr.Error())
	}
	return h
}

// note adds what our rules can't do for what the server can't tell. It needs the lock.
func (g *Group) note(e *endpoint) string {
	notes := []string{e.Note}
	if e.Note == "" {
		notes = nil
	}
	if e.seen && e.Role == RoleUnknown && e.Recovery == RecoveryUnknown {
		notes = append(notes, "role unknown: taken as eligible")
	}
	if e.seen && g.fence.on && !g.alone && !e.known() {
		notes = append(notes, "role, timeline or system identifier unknown: never fenced")
	}
	return strings.Join(notes, "; ")
}

func successRate(total, failed int64) float64 {
	if total == 0 {
		return 100
	}
	return 100 * float64(total-failed) / float64(total)
}

// Status says which endpoint is used, and how it came to that.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Status{
		FailoverCount: g.failovers,
		FailbackCount: g.failbacks,
		LastFailover:  g.lastFailover,
		History:       slices.Clone(g.events),
	}
	for _, e := range g.endpoints {
		s.Endpoints = append(s.Endpoints, e.name)
	}
	if len(g.endpoints) > 0 && g.lostAt.IsZero() {
		s.Current = g.endpoints[g.current].name
		s.IsPrimary = g.current == 0
	}
	return s
}

// ResetCounts sets the counts of checks, failovers and failbacks to zero. What is known of the endpoints, and the
// histories, stay.
func (g *Group) ResetCounts() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failovers, g.failbacks = 0, 0
	for _, e := range g.endpoints {
		e.total, e.failed, e.goodTime = 0, 0, 0
	}
}
