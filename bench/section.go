package main

import (
	"fmt"
	"io"
	"regexp"
	"runtime"
)

// section is a table: workloads by comparisons.
type section struct {
	name        string
	about       string
	now         clock
	procs       int // GOMAXPROCS; 0: as it is
	workloads   []workload
	comparisons []comparison
	full, quick effort
	stop        func()
}

// comparison is a subject beside another one, and what it may cost.
type comparison struct {
	subject, against *subject
	budget           func(w *workload) budget // nil: nothing is said
	rival            *subject                 // of a peer: who is to be quicker, from a comparison before this one
	rough            bool                     // a quarter of the rounds will do
}

const rowFormat = "| %-17s | %-26s | %-15s | %7s | %7s | %-21s | %6s | %12s | %-27s | %-5s |\n"

func (s *section) close() { s.stop() }

func (s *section) run(out io.Writer, quick bool, pick *regexp.Regexp) error {
	e := s.full
	if quick {
		e = s.quick
	}
	e.now = s.now
	if s.procs > 0 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(s.procs))
	}
	if !s.has(pick) {
		return nil
	}
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", s.name, s.about)
	printRowHead(out)
	for i := range s.workloads {
		if err := s.measure(out, &s.workloads[i], e, pick); err != nil {
			return err
		}
	}
	return nil
}

// measure is a workload's rows.
func (s *section) measure(out io.Writer, w *workload, e effort, pick *regexp.Regexp) error {
	measured := map[*subject]summary{}
	for _, c := range s.comparisons {
		if !pick.MatchString(s.row(w, &c)) {
			continue
		}
		with := e
		if c.rough {
			with.rounds = max(2, e.rounds/4)
		}
		r, err := compare(c.against, c.subject, w, with)
		if err != nil {
			return err
		}
		measured[c.subject] = r.summary
		text, verdict := "", ""
		if c.budget != nil {
			b := c.budget(w)
			text, verdict = b.String(), b.verdict(r)
		} else if rival, ok := measured[c.rival]; ok {
			text, verdict = "> "+c.rival.name, ahead(rival, r.summary)
		}
		printRow(out, w.name, c.subject.name, c.against.name, r, text, verdict)
	}
	return nil
}

func printRowHead(out io.Writer) {
	fmt.Fprintf(out, rowFormat, "workload", "subject", "against", "ns/call", "+ns", "ratio (quartiles)", "±", "allocs", "budget", "")
	fmt.Fprintf(out, rowFormat, "---", "---", "---", "--:", "--:", "---", "--:", "--:", "---", "---")
}

func printRow(out io.Writer, workload, subject, against string, r result, budget, verdict string) {
	fmt.Fprintf(out, rowFormat, workload, subject, against,
		fmt.Sprintf("%.0f", r.base+r.delta),
		fmt.Sprintf("%+.0f", r.delta),
		fmt.Sprintf("%.3f (%.3f-%.3f)", r.ratio, r.q1, r.q3),
		fmt.Sprintf("%.3f", r.ratioError),
		fmt.Sprintf("%.1f (%+.1f)", r.allocs, r.allocs-r.baseAllocs),
		budget, verdict)
}

// row is what -only is matched against.
func (s *section) row(w *workload, c *comparison) string {
	return s.name + ": " + w.name + ": " + c.subject.name
}

func (s *section) has(pick *regexp.Regexp) bool {
	for i := range s.workloads {
		for j := range s.comparisons {
			if pick.MatchString(s.row(&s.workloads[i], &s.comparisons[j])) {
				return true
			}
		}
	}
	return false
}
