// Overload offers more calls than there is capacity for, stops the server for a while, and slows the opening of connections down,
// in the same way for bare drivers, pools and managedpg with 8 connections each, and prints what the application got of it.
//
//	go run ./overload          every scenario 5 times for each subject, a quarter of an hour
//	go run ./overload -quick   once
//	go run ./overload -only brownout -n 3
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"

	"github.com/managedpg/managedpg/bench/internal/machine"
	"github.com/managedpg/managedpg/bench/internal/quantile"
)

func main() {
	n := flag.Int("n", 5, "how often each scenario is repeated")
	quick := flag.Bool("quick", false, "each scenario once")
	only := flag.String("only", "", "only the scenarios that match this regular expression")
	flag.Parse()
	if *quick {
		*n = 1
	}
	pick, err := regexp.Compile(*only)
	if err == nil {
		err = run(os.Stdout, *n, pick)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "overload:", err)
		os.Exit(1)
	}
}

const legend = `
Each subject has 8 connections. What a call waits for is pg_sleep, so that the server's capacity is known: it is what bare pgx gets done with
8 goroutines in a loop, measured before each run. Offered load is an open loop: calls begin at their times whether those before have ended or
not. All figures are medians. Sessions are those begun on the server during the run, seen by a relay in front of it.
`

func run(out io.Writer, n int, pick *regexp.Regexp) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	fmt.Fprintf(out, "%s%s", machine.Head("Overload", "go run ./overload"), legend)
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	for _, s := range scenarios {
		if !pick.MatchString(s.name) {
			continue
		}
		all, runs := map[string]figures{}, map[string][]figures{}
		for range n {
			for _, i := range rand.Perm(len(subjects)) {
				f, err := w.try(s, subjects[i])
				if err != nil {
					return fmt.Errorf("%s: %s: %w", s.name, subjects[i].name, err)
				}
				runs[subjects[i].name] = append(runs[subjects[i].name], f)
			}
		}
		for name, rs := range runs {
			all[name] = medians(rs)
		}
		fmt.Fprintf(out, "\n## %s\n\n%s\n\n", s.name, s.about)
		s.print(out, all)
	}
	return nil
}

// figures are what a run gave, by the name of the column.
type figures map[string]float64

// noise is the figure that says by how much the mean of another one may be off, at twice its standard error.
func noise(of string) string { return of + ", noise" }

// medians are those of each column, and the noise of each; of a single run it isn't known, and counts as none.
func medians(runs []figures) figures {
	m := figures{}
	for name := range runs[0] {
		var values []float64
		for _, r := range runs {
			values = append(values, r[name])
		}
		m[name] = quantile.Median(values)
		if len(runs) > 1 {
			m[noise(name)] = quantile.Spread(values)
		}
	}
	return m
}

// print prints a table, and what it says of the limits.
func (s *scenario) print(out io.Writer, all map[string]figures) {
	fmt.Fprintf(out, "| | %s |\n|---|%s\n", strings.Join(s.columns, " | "), strings.Repeat("--:|", len(s.columns)))
	for _, subject := range subjects {
		fmt.Fprintf(out, "| %s |", subject.name)
		for _, c := range s.columns {
			fmt.Fprintf(out, " %s |", number(all[subject.name][c]))
		}
		fmt.Fprintln(out)
	}
	if s.verdict == nil {
		return
	}
	fmt.Fprintln(out)
	for _, subject := range subjects {
		if !subject.governed {
			continue
		}
		verdict := "PASS"
		if misses := s.verdict(all[subject.name], all); len(misses) > 0 {
			verdict = "FAIL: " + strings.Join(misses, "; ")
		}
		fmt.Fprintf(out, "- %s: %s\n", subject.name, verdict)
	}
}

func number(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	if v >= 100 || v == float64(int(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// limits collects what is missed.
type limits []string

func (l *limits) want(holds bool, format string, args ...any) {
	if !holds {
		*l = append(*l, fmt.Sprintf(format, args...))
	}
}
