package web

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// lately is the time over which the page says what has gone wrong.
const lately = recent

// situation is what is known of a pool at one moment.
type situation struct {
	now     time.Time
	stats   *stats.Snapshot
	health  *failover.Health
	status  *failover.Status
	usage   []leak.Usage
	holders []leak.Report
	leaks   []leak.Report
	waiting []leak.Waiting
	lags    map[string][]lagPoint // by endpoint
	before  sample                // some minutes ago
	present sample
}

// problem is something that the reader should know at once, and what to do about it. Level is bad or warn.
type problem struct {
	Level, Text, Do string
	Query           string // to be asked of the server
}

// problems are those of a pool, what hurts most first; none: all is well.
func (in *situation) problems() []problem {
	var all []problem
	for _, look := range []func(*situation) (problem, bool){
		noServer, paused, exhausted, waitsForDials, leaking, failedOver, overdue, failing, losing, dialling,
	} {
		if p, ok := look(in); ok {
			all = append(all, p)
		}
	}
	all = append(all, in.endpointsDown()...)
	slices.SortStableFunc(all, func(a, b problem) int { return rank(a.Level) - rank(b.Level) })
	return all
}

func noServer(in *situation) (problem, bool) {
	if in.stats.Endpoint != "" {
		return problem{}, false
	}
	text := "No server is usable"
	for _, e := range in.health.Endpoints {
		if e.LastError != "" {
			text += fmt.Sprintf("; %s is %s (%s)", e.Endpoint, e.State, plain(e.LastError))
		}
	}
	return problem{Level: "bad", Text: text + ".", Do: "Look at the servers and the network to them; what each last said stands below."}, true
}

func paused(in *situation) (problem, bool) {
	text := fmt.Sprintf("Paused for %s; %s.", short(in.stats.Paused), waits(in.stats.Waiting))
	return problem{Level: "warn", Text: text, Do: "Pool.Resume ends it."}, in.stats.Paused > 0
}

// full: each connection that there may be is in use.
func full(s *stats.Snapshot) bool { return limit(s) > 0 && s.CheckedOut >= limit(s) }

func exhausted(in *situation) (problem, bool) {
	s := in.stats
	if s.Waiting == 0 || s.Paused > 0 || !full(s) {
		return problem{}, false
	}
	level, text := "bad", "Exhausted: "+waits(s.Waiting)
	if len(in.waiting) > 0 {
		longest := time.Duration(0)
		for _, w := range in.waiting {
			longest = max(longest, w.Longest)
		}
		if longest < longWait && s.QueueStanding == 0 {
			level, text = "warn", "Full: "+waits(s.Waiting)
		}
		text += ", the longest for " + short(longest)
	}
	if s.QueueStanding > 0 {
		text += ", the queue has stood for " + short(s.QueueStanding)
	}
	do := "If all hold briefly, raise pool_size, as far as the server has room."
	if now, ok := heldNow(in.holders); ok {
		text += fmt.Sprintf("; %s has %d of %s, the longest for %s", shortCaller(now.caller), now.connections,
			count(limit(s), "connection"), short(now.longest))
		do = "See what this line does while it holds a connection. " + do
		if most := in.usage; len(most) > 0 && most[0].Caller == now.caller {
			text += fmt.Sprintf(", and has held %.0f %% of the pool's time", 100*most[0].Share)
		} else if len(most) > 0 && most[0].Caller != "" {
			text += fmt.Sprintf("; over the last minutes %s has held %.0f %% of the pool's time", shortCaller(most[0].Caller), 100*most[0].Share)
		}
	}
	if len(in.waiting) > 0 && in.waiting[0].Caller != "" {
		wait := "wait"
		if in.waiting[0].Checkouts == 1 {
			wait = "waits"
		}
		text += fmt.Sprintf("; %d %s at %s", in.waiting[0].Checkouts, wait, shortCaller(in.waiting[0].Caller))
	}
	return problem{Level: level, Text: text + ".", Do: do}, true
}

// longWait is how long somebody waits for a connection of a pool that is more than busy.
const longWait = time.Second

// holding is what a line of code has now.
type holding struct {
	caller      string
	connections int
	longest     time.Duration
	sum         time.Duration
}

// heldNow is the line that has held what is in use now for longest, all its connections together.
func heldNow(holders []leak.Report) (most holding, ok bool) {
	byCaller := make(map[string]*holding)
	for _, r := range holders {
		h := byCaller[r.Caller]
		if h == nil {
			h = &holding{caller: r.Caller}
			byCaller[r.Caller] = h
		}
		h.connections++
		h.longest = max(h.longest, r.Duration)
		h.sum += r.Duration
	}
	for _, h := range byCaller {
		if h.caller != "" && (cmp.Or(cmp.Compare(h.sum, most.sum), cmp.Compare(most.caller, h.caller)) > 0 || !ok) {
			most, ok = *h, true
		}
	}
	return most, ok
}

func waitsForDials(in *situation) (problem, bool) {
	s := in.stats
	text := fmt.Sprintf("%s for a connection to be opened.", waits(s.Waiting))
	return problem{Level: "warn", Text: text, Do: "See what dials take, and what they fail with."},
		s.Waiting > 0 && s.Paused == 0 && s.Endpoint != "" && s.CheckedIn == 0 && s.Dialling > 0 && !full(s)
}

func leaking(in *situation) (problem, bool) {
	if len(in.leaks) == 0 {
		return problem{}, false
	}
	longest := in.leaks[0]
	text := fmt.Sprintf("Leaking: %s held for too long, the longest for %s by %s.", count(int64(len(in.leaks)), "connection"),
		short(longest.Duration), shortCaller(longest.Caller))
	return problem{Level: "bad", Text: text, Do: "See that this line closes its Rows, Tx or Conn on every path; its stack stands below."}, true
}

func failedOver(in *situation) (problem, bool) {
	if in.stats.Endpoint == "" || len(in.status.History) == 0 {
		return problem{}, false
	}
	last, back := in.status.History[len(in.status.History)-1], in.state(in.status.History[len(in.status.History)-1].From) == failover.Up
	age := in.now.Sub(last.At)
	if in.stats.IsPrimary && (last.Kind != failover.Failover || age > lately) || back && age > past {
		return problem{}, false
	}
	text := fmt.Sprintf("On %s since %s, in place of %s: %s", last.To, clockTime(in.now, last.At), last.From, plain(last.Reason))
	do := "Bring the server back that was left, so that there is one to go to when this one dies too."
	if back {
		do = "The server that was left is up again, so that there is one to go to when this one dies."
	}
	if last.Duration >= longWait {
		text += fmt.Sprintf("; for %s there was no server to use", short(last.Duration))
		do = "See in the cluster manager's log when it promoted this one: managedpg's own part is what is left, some milliseconds. " + do
	}
	level := "warn"
	if age < time.Minute { // it stands before the calls that it has cost, which it explains
		level = "bad"
	}
	return problem{Level: level, Text: text + ".", Do: do}, true
}

// state is an endpoint's.
func (in *situation) state(endpoint string) failover.State {
	for _, e := range in.health.Endpoints {
		if e.Endpoint == endpoint {
			return e.State
		}
	}
	return failover.Unknown
}

// failing: checkouts have failed within the last minutes.
func failing(in *situation) (problem, bool) {
	p, really := in.lately("checkout", "failed", "What the servers said last stands below.", whyNoConnection, stats.ErrorPoolTimeout, stats.ErrorCheckout)
	if in.present.errors[timeouts] > in.before.errors[timeouts] {
		p.Do = "The lines of code that used the pool stand below; each pool_timeout error names them too."
	}
	return p, really
}

// losing: connections were lost under calls within the last minutes.
func losing(in *situation) (problem, bool) {
	return in.lately("call", "lost", "Look up whether those with an outcome unknown ran (docs/errors.md).", whyLost,
		stats.ErrorOutcomeUnknown, stats.ErrorTxLost, stats.ErrorReclaimed)
}

// lately tells of errors of these kinds within the last minutes, and of what has caused them.
func (in *situation) lately(what, became, do string, cause func(stats.ErrorCount) string, kinds ...stats.ErrorKind) (problem, bool) {
	n, last := int64(0), time.Time{}
	var codes, causes []string
	var sums []int
	for _, e := range in.stats.Errors {
		if slices.Contains(kinds, e.Kind) && in.now.Sub(e.Last) < lately {
			if last.IsZero() || e.Last.After(last) {
				last = e.Last
			}
			codes = append(codes, name(e))
			if why := cause(e); why != "" && !slices.Contains(causes, why) {
				causes = append(causes, why)
			}
			if sum := sumOf(e.Kind); !slices.Contains(sums, sum) {
				sums = append(sums, sum)
			}
		}
	}
	if last.IsZero() {
		return problem{}, false
	}
	for _, sum := range sums {
		n += in.present.errors[sum] - in.before.errors[sum]
	}
	level := "warn"
	if in.now.Sub(last) < time.Minute {
		level = "bad"
	}
	text := fmt.Sprintf("%s %s in the last %s, the last one at %s (%s)", count(max(n, 1), what), became, short(lately),
		clockTime(in.now, last), strings.Join(codes, ", "))
	if len(causes) > 0 {
		text += ": " + strings.Join(causes, "; ")
	}
	return problem{Level: level, Text: text + ".", Do: do}, true
}

// name is "pool_timeout" or "statement 23505".
func name(e stats.ErrorCount) string {
	if e.Kind == stats.ErrorPoolTimeout {
		return string(e.Kind)
	}
	return string(e.Kind) + " " + e.Code
}

// endpointsDown are those that the sentences before don't tell of.
func (in *situation) endpointsDown() (all []problem) {
	if in.stats.Endpoint == "" {
		return nil
	}
	told := ""
	if _, moved := failedOver(in); moved {
		told = in.status.History[len(in.status.History)-1].From
	}
	for _, e := range in.health.Endpoints {
		if e.State != failover.Down && e.State != failover.Misconfigured || e.Endpoint == told {
			continue
		}
		text := fmt.Sprintf("%s is %s", e.Endpoint, e.State)
		if e.LastError != "" {
			text += ": " + plain(e.LastError)
		}
		all = append(all, problem{Level: "warn", Text: text + ".", Do: "Until it is back there is one server less to go to."})
	}
	return all
}

func waits(n int64) string {
	switch n {
	case 0:
		return "nobody waits"
	case 1:
		return "1 checkout waits"
	default:
		return fmt.Sprintf("%d checkouts wait", n)
	}
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
