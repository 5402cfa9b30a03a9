package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

const legend = `- errors/in flight: errors that the application saw, and workers with a call in progress during the fault; most in one repetition
- per worker: the most errors that one worker saw
- lost, doubled, false: told success and not there; there twice; told that nothing was sent, and there
- first: from the fault (1: from when the standby accepts writes; 2: from the first connection that breaks) to the first
  success on the other server
- stuck: the longest that a call took which was in progress during the fault
- slow: later calls that took longer than usual (the slowest percent before the fault) by 50 ms, of how many; in brackets
  those that were not a worker's first on the other server, which has a connection to open`

// outcome is what one repetition found.
type outcome struct { // More than 15 fields: one for each column of the report.
	part                   string // of the scenario, if it has several
	errors, inFlight       int
	perWorker              int
	lost, doubled, untrue  int
	first                  time.Duration
	hasFirst               bool
	stuck                  time.Duration
	slow, slowAgain, later int
	slowest                time.Duration
	usual                  time.Duration
	failed                 []string // the bounds that were not kept
	sample                 error
}

func (o outcome) String() string {
	s := fmt.Sprintf("%s errors %d/%d, first %v, stuck %v, slow %d/%d (usual %v, slowest %v)", o.part, o.errors, o.inFlight, ms(o.first),
		ms(o.stuck), o.slow, o.later, ms(o.usual), ms(o.slowest))
	if len(o.failed) > 0 {
		s += "; FAIL: " + strings.Join(o.failed, "; ")
	}
	if o.sample != nil {
		s += "; an error: " + told(o.sample)
	}
	return s
}

// want notes a bound that was not kept.
func (o *outcome) want(kept bool, format string, args ...any) {
	if !kept {
		o.failed = append(o.failed, fmt.Sprintf(format, args...))
	}
}

// row is all repetitions of a scenario, or of a part of it, with one setup.
type row struct {
	part  string
	all   []outcome
	first []time.Duration
}

func (r *row) add(o outcome) {
	r.all = append(r.all, o)
	if o.hasFirst {
		r.first = append(r.first, o.first)
	}
}

func head(out io.Writer) {
	fmt.Fprintln(out, "| setup | errors / in flight | most at once | per worker | lost, doubled, false | first success: median, p90, max (ms) | stuck (ms) | slow later calls | |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|")
}

// print says whether all bounds were kept.
func (r *row) print(out io.Writer, with setup) bool {
	var sum, most outcome
	mostOf := ""
	why := map[string]int{}
	for _, o := range r.all {
		sum.errors += o.errors
		sum.inFlight += o.inFlight
		sum.lost += o.lost
		sum.doubled += o.doubled
		sum.untrue += o.untrue
		sum.slow += o.slow
		sum.slowAgain += o.slowAgain
		sum.later += o.later
		most.perWorker = max(most.perWorker, o.perWorker)
		most.stuck = max(most.stuck, o.stuck)
		if o.errors >= most.errors {
			most.errors = o.errors
			mostOf = fmt.Sprintf("%d / %d", o.errors, o.inFlight)
		}
		for _, f := range o.failed {
			why[f]++
		}
	}
	limit := medianLimit(r.part)
	if limit > 0 && !untimed && len(r.first) > 0 && quantile(r.first, 0.5) > limit {
		why[fmt.Sprintf("median %v > %v", ms(quantile(r.first, 0.5)), limit)]++
	}
	verdict := "PASS"
	if len(why) > 0 {
		verdict = "FAIL"
	}
	name := with.String()
	if strings.Contains(r.part, ":") {
		name += ", " + r.part[strings.Index(r.part, ":")+2:]
	}
	first := "-"
	if len(r.first) > 0 {
		first = fmt.Sprintf("%v, %v, %v", ms(quantile(r.first, 0.5)), ms(quantile(r.first, 0.9)), ms(slices.Max(r.first)))
	}
	fmt.Fprintf(out, "| %s | %d / %d | %s | %d | %d, %d, %d | %s | %v | %d (%d) / %d | %s |\n", name, sum.errors, sum.inFlight, mostOf, most.perWorker,
		sum.lost, sum.doubled, sum.untrue, first, ms(most.stuck), sum.slow, sum.slowAgain, sum.later, verdict)
	for f, times := range why {
		fmt.Fprintf(out, "| | %d of %d: %s | | | | | | | |\n", times, len(r.all), f)
	}
	return len(why) == 0
}

// untimed: only what callers were told is judged, and what became of their statements.
var untimed bool

// medianLimit is the bound on the median of the time to the first success.
func medianLimit(part string) time.Duration {
	switch part {
	case "promotion":
		return 60 * time.Millisecond
	case "independent":
		return 25 * time.Millisecond
	default:
		return 0
	}
}

// ms prints a duration as milliseconds.
type ms time.Duration

func (d ms) String() string { return fmt.Sprintf("%.1f", float64(d)/1e6) }

func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Clone(ds)
	slices.Sort(sorted)
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
