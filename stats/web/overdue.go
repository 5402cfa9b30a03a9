package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// whoBlocksWhom is for a person to run: who waits for a lock, for whom, and what that one last did. Whose transaction is the oldest stands first.
const whoBlocksWhom = `SELECT waiting.pid, waiting.query, blocking.pid AS blocked_by, blocking.state, now() - blocking.xact_start AS in_transaction_for, ` +
	`blocking.query AS its_last_query FROM pg_stat_activity waiting JOIN pg_stat_activity blocking ON blocking.pid = ANY (pg_blocking_pids(waiting.pid)) ` +
	`ORDER BY blocking.xact_start;`

// mostOverdue is how many lines of code are named whose calls run out of time.
const mostOverdue = 2

// overdue: calls have run out of time within the last minutes, though the server is there.
func overdue(in *situation) (problem, bool) {
	ever, last := int64(0), time.Time{}
	for _, e := range in.stats.Errors {
		if ranOut(e) && in.now.Sub(e.Last) < lately {
			if ever += e.Count; e.Last.After(last) {
				last = e.Last
			}
		}
	}
	if ever == 0 {
		return problem{}, false
	}
	level, text := "warn", "Calls run out of time: "
	if n, lines := whoseCalls(in.usage); n > 0 {
		if checkouts := in.present.checkouts - in.before.checkouts; 2*n >= checkouts && in.now.Sub(last) < time.Minute {
			level = "bad"
		}
		text += fmt.Sprintf("%d in the last %s, the last one at %s, %s.", n, short(lately), clockTime(in.now, last), lines)
	} else {
		text += fmt.Sprintf("%d since the start, the last one at %s.", ever, clockTime(in.now, last))
	}
	e, do := in.current(), ""
	switch {
	case e == nil || e.State == failover.Down:
		return problem{Level: level, Text: text, Do: "No server answers: what each last said stands below."}, true
	case e.State == failover.Up && e.ResponseTime > 0:
		do = fmt.Sprintf("The server is up, a probe took %s at %s: it is at work on them, or they wait for a lock. ", short(e.ResponseTime),
			clockTime(in.now, e.LastCheck))
	}
	return problem{Level: level, Text: text, Query: whoBlocksWhom, Do: do + "Ask it who blocks whom. If blocked_by is one of ours, it is below among those " +
		"who hold connections now, by its backend pid. If nobody is blocked, see in pg_stat_activity what runs."}, true
}

// ranOut is of calls that have ended at their deadline, or were cancelled by the server; those of a connection that was lost by it, too.
func ranOut(e stats.ErrorCount) bool {
	switch e.Kind {
	case stats.ErrorStatement, stats.ErrorOutcomeUnknown, stats.ErrorTxLost:
		return e.Code == "deadline" || e.Code == sqlstate.QueryCanceled
	default:
		return false
	}
}

// whoseCalls says how many calls have run out of time, and at which lines of code most did.
func whoseCalls(usage []leak.Usage) (n int64, lines string) {
	slow := slices.DeleteFunc(slices.Clone(usage), func(u leak.Usage) bool { return u.TimedOut == 0 })
	slices.SortStableFunc(slow, func(a, b leak.Usage) int { return int(b.TimedOut - a.TimedOut) })
	var named []string
	for i, u := range slow {
		if n += u.TimedOut; i < mostOverdue {
			named = append(named, fmt.Sprintf("%d at %s", u.TimedOut, shortCaller(u.Caller)))
		}
	}
	return n, strings.Join(named, " and ")
}

// current is the endpoint in use, as far as it is known.
func (in *situation) current() *failover.EndpointHealth {
	for i := range in.health.Endpoints {
		if e := &in.health.Endpoints[i]; e.Endpoint == in.stats.Endpoint {
			return e
		}
	}
	return nil
}
