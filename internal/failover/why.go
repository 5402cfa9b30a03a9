package failover

import (
	"fmt"
)

// whyNotLocked says why an endpoint isn't usable; "" if it is.
func (g *Group) whyNotLocked(e *endpoint) string {
	switch {
	case e.gone:
		return "its name doesn't have this address any more"
	case e.barred:
		return "failover is off"
	case e.fenced:
		return g.whyFencedLocked(e.Observation)
	case e.state == Down || e.state == Misconfigured:
		why := string(e.state)
		if e.lastErr != nil {
			why += ": " + redact(e.lastErr.Error())
		}
		return why
	case !g.rules.target.admits(e.Observation):
		return g.whyNotAdmitted(e.Observation)
	case e.lagging:
		return g.whyLaggingLocked(e)
	case e.full:
		return "no room"
	default:
		return ""
	}
}

func (g *Group) whyFencedLocked(o Observation) string {
	n := g.fence.highest[o.SystemID]
	return fmt.Sprintf("on timeline %d, while %s was seen on timeline %d (after a restore from a backup: Pool.ForgetTimelines)",
		o.Timeline, n.endpoint, n.timeline)
}

func (g *Group) whyNotAdmitted(o Observation) string {
	is := string(o.Role)
	switch o.Recovery {
	case InRecovery:
		is = "a standby"
	case NotInRecovery:
		is = "a " + is + " primary"
	}
	return fmt.Sprintf("it is %s, wanted is %s", is, g.rules.target)
}
