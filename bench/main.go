// Bench measures what managedpg costs, on a base driver that does nothing and on a real PostgreSQL, beside bare drivers,
// wrappers and pools, and holds it against the project's budgets.
//
//	go run .          some twenty minutes
//	go run . -quick   two minutes, for a first look
//	go run . -only 'fake: Exec'
//	go run . -only '^(parallel|scale)'
//	go run . -quote   puts RESULTS.md into the README and docs/figures.md
//
// Every figure of a single call comes from pairs: a short block of calls through one subject and one through the other,
// back to back, the order drawn by lot. What the machine does meanwhile hits both, so it is the pairs' medians that are
// printed, and a comparison of a subject with itself is the first row of each table: the noise floor. Crowds of goroutines are
// measured in rounds, in the same way. Nothing here fails for being slow.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"

	"github.com/managedpg/managedpg/bench/internal/machine"
)

func main() {
	quick := flag.Bool("quick", false, "a short run, whose figures are rough")
	only := flag.String("only", "", "measure only the rows whose \"section: workload: subject\", \"parallel: goroutines\" or "+
		"\"scale: connections\" matches this regular expression")
	quotes := flag.Bool("quote", false, "measure nothing, and put RESULTS.md into the documents that quote it")
	flag.Parse()
	pick, err := regexp.Compile(*only)
	switch {
	case err != nil:
	case *quotes:
		err = quoteResults()
	default:
		err = run(os.Stdout, *quick, pick)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// table is a part of the report.
type table interface {
	run(out io.Writer, quick bool, pick *regexp.Regexp) error
	close()
}

func run(out io.Writer, quick bool, pick *regexp.Regexp) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	fmt.Fprintf(out, "%s\n%s", machine.Head("What managedpg costs", "go run ."), legend)
	for _, open := range []func() (table, error){
		func() (table, error) { return fakeSection(), nil },
		func() (table, error) { return usage{}, nil },
		postgresSection,
		unpinnedSection,
		tlsSection,
		func() (table, error) { return parallelSection() },
		func() (table, error) { return scale{}, nil },
	} {
		t, err := open()
		if err != nil {
			return err
		}
		err = t.run(out, quick, pick)
		t.close()
		if err != nil {
			return err
		}
	}
	return nil
}

const legend = `Each row compares a subject with the one after "against", block by block. Ratio and ns are medians over the pairs, the
quartiles of the ratio stand behind it; ± is twice the standard error of that median, over
rounds that open their connections anew. Allocations are counted apart. FAIL is a median above its budget by more than ±, PASS any other;
a "?" says that the budget is no farther off than ±. A peer's budget is a name: who is to be quicker than the peer, by the two
ratios; PASS says that it is.
`
