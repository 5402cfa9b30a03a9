package main

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"runtime"
	"strings"
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
	close       func()
}

// comparison is a subject beside another one, and what it may cost.
type comparison struct {
	subject, against *subject
	budget           func(w *workload) budget
}

// budget is what a subject may cost above the one it is compared with. The zero value allows everything.
type budget struct {
	ns      float64 // 0: no limit
	ratio   float64 // 0: no limit
	allocs  float64 // a limit only if counted
	counted bool
}

func noBudget(*workload) budget { return budget{} }

func (b budget) String() string {
	var parts []string
	if b.ns > 0 {
		parts = append(parts, fmt.Sprintf("%.0f ns", b.ns))
	}
	if b.ratio > 0 {
		parts = append(parts, fmt.Sprintf("%.2f", b.ratio))
	}
	if b.counted {
		parts = append(parts, fmt.Sprintf("%.0f allocs", b.allocs))
	}
	return strings.Join(parts, ", ")
}

// verdict holds a result against the budget: PASS or FAIL, and a question mark when the measurement is too coarse to
// tell.
func (b budget) verdict(r result) string {
	over, near := false, false
	check := func(got, limit, spread float64) {
		over = over || got > limit
		near = near || math.Abs(got-limit) <= spread
	}
	if b.ns > 0 {
		check(r.delta, b.ns, r.deltaError)
	}
	if b.ratio > 0 {
		check(r.ratio, b.ratio, r.ratioError)
	}
	if b.counted {
		const stray = 0.1 // what another goroutine may have allocated meanwhile, in a call
		check(r.allocs-r.baseAllocs, b.allocs+stray, 0)
	}
	verdict := "PASS"
	switch {
	case b == budget{}:
		return ""
	case over:
		verdict = "FAIL"
	}
	if near {
		verdict += "?"
	}
	return verdict
}

const rowFormat = "| %-17s | %-26s | %-15s | %7s | %7s | %-21s | %6s | %11s | %-17s | %-5s |\n"

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
	fmt.Fprintf(out, rowFormat, "workload", "subject", "against", "ns/call", "+ns", "ratio (quartiles)", "±", "allocs", "budget", "")
	fmt.Fprintf(out, rowFormat, "---", "---", "---", "--:", "--:", "---", "--:", "--:", "---", "---")
	for i := range s.workloads {
		w := &s.workloads[i]
		for _, c := range s.comparisons {
			if !pick.MatchString(s.row(w, &c)) {
				continue
			}
			r, err := compare(c.against, c.subject, w, e)
			if err != nil {
				return err
			}
			b := c.budget(w)
			fmt.Fprintf(out, rowFormat, w.name, c.subject.name, c.against.name,
				fmt.Sprintf("%.0f", r.base+r.delta),
				fmt.Sprintf("%+.0f", r.delta),
				fmt.Sprintf("%.3f (%.3f-%.3f)", r.ratio, r.q1, r.q3),
				fmt.Sprintf("%.3f", r.ratioError),
				fmt.Sprintf("%.1f (%+.1f)", r.allocs, r.allocs-r.baseAllocs),
				b, b.verdict(r))
		}
	}
	return nil
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
