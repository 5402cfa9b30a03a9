package web

import (
	"fmt"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// story is what is wrong with a pool now, in one sentence, and what to do about it. Without a text all is well.
type story struct{ Level, Text, Do string }

// tell picks what hurts most: no server, a pause, an exhausted pool, a leak, a failover.
func tell(s *stats.Snapshot, h *failover.Health, status *failover.Status, usage []leak.Usage) story {
	switch {
	case s.Endpoint == "":
		text := "No server is usable."
		for _, e := range h.Endpoints {
			if e.LastError != "" {
				text = fmt.Sprintf("No server is usable: %s is %s (%s).", e.Endpoint, e.State, e.LastError)
				break
			}
		}
		return story{"bad", text, "Look at the servers and the network to them; each endpoint's last error stands below."}
	case s.Paused > 0:
		return story{"warn", fmt.Sprintf("Paused for %s; %s.", short(s.Paused), waits(s.Waiting)), "Pool.Resume ends it."}
	case s.Waiting > 0 && limit(s) > 0 && s.CheckedOut >= limit(s):
		return exhausted(s, usage)
	case s.LeakedConnections > 0:
		text := fmt.Sprintf("Leaking: %s held for too long", count(s.LeakedConnections, "connection"))
		if len(s.LongestHolders) > 0 {
			longest := s.LongestHolders[0]
			text += fmt.Sprintf(", the longest for %s by %s", short(longest.Held), shortCaller(longest.Caller))
		}
		return story{"bad", text + ".", "See that this line closes its Rows, Tx or Conn on every path; its stack stands below."}
	case !s.IsPrimary && len(status.History) > 0:
		last := status.History[len(status.History)-1]
		return story{"warn", fmt.Sprintf("On %s since %s, in place of %s: %s.", last.To, last.At.Format("15:04:05"), last.From, last.Reason),
			"Bring the server back that was left, so that there is one to go to when this one dies too."}
	}
	return story{}
}

func exhausted(s *stats.Snapshot, usage []leak.Usage) story {
	text := "Exhausted: " + waits(s.Waiting)
	if s.QueueStanding > 0 {
		text += ", the queue has stood for " + short(s.QueueStanding)
	}
	do := "If all hold briefly, raise pool_size, as far as the server has room."
	switch {
	case len(usage) > 0 && usage[0].Caller != "":
		text += fmt.Sprintf("; %s has held %.0f %% of the pool's time", shortCaller(usage[0].Caller), 100*usage[0].Share)
		do = "See what this line does while it holds a connection. " + do
	case len(s.LongestHolders) > 0 && s.LongestHolders[0].Caller != "":
		text += fmt.Sprintf("; %s has held a connection for %s", shortCaller(s.LongestHolders[0].Caller), short(s.LongestHolders[0].Held))
		do = "See what this line does while it holds a connection. " + do
	}
	return story{"bad", text + ".", do}
}

func waits(n int64) string {
	if n == 0 {
		return "nobody waits"
	}
	return fmt.Sprintf("%s wait%s", count(n, "checkout"), thirdPerson(n))
}

// rank puts trouble first.
func rank(level string) int {
	switch level {
	case "bad":
		return 0
	case "warn":
		return 1
	default:
		return 2
	}
}

// worst is the level of the worst of all problems.
func worst(all []problem) string {
	level := "good"
	for _, p := range all {
		if rank(p.Level) < rank(level) {
			level = p.Level
		}
	}
	return level
}

// usageView is a line of code and its part of the pool's time.
type usageView struct {
	leak.Usage
	Short, Percent, HeldFor, WaitedFor string
}

// mostUsers bounds how many lines of code are shown.
const mostUsers = 10

func usedBy(usage []leak.Usage) []usageView {
	var all []usageView
	for _, u := range usage[:min(len(usage), mostUsers)] {
		all = append(all, usageView{u, shortCaller(u.Caller), fmt.Sprintf("%.0f %%", 100*u.Share), short(u.Held), short(u.Waited)})
	}
	return all
}
