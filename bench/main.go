// Bench measures what managedpg costs, on a base driver that does nothing and on a real PostgreSQL, and holds it against
// the project's budgets.
//
//	go run .          some minutes
//	go run . -quick   some 20 seconds, for a first look
//	go run . -only 'fake: Exec'
//
// Every figure comes from pairs: a short block of calls through one subject and one through the other, back to back, the
// order drawn by lot. What the machine does meanwhile hits both, so it is the pairs' medians that are printed, and a
// comparison of a subject with itself is the first row of each table: the noise floor. Nothing here fails for being slow.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"time"
)

func main() {
	quick := flag.Bool("quick", false, "a short run, whose figures are rough")
	only := flag.String("only", "", "measure only the rows whose \"section: workload: subject\" matches this regular expression")
	flag.Parse()
	pick, err := regexp.Compile(*only)
	if err == nil {
		err = run(os.Stdout, *quick, pick)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, quick bool, pick *regexp.Regexp) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	fmt.Fprintf(out, "# What managedpg costs\n\n%s\n", machine())
	fmt.Fprintf(out, "- command: go run . %s\n", strings.Join(os.Args[1:], " "))
	fmt.Fprintf(out, "- date: %s\n\n", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprint(out, legend)
	for _, open := range []func() (*section, error){fakeSection, postgresSection} {
		s, err := open()
		if err != nil {
			return err
		}
		err = s.run(out, quick, pick)
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

const legend = `Each row compares a subject with the one after "against", block by block. Ratio and ns are medians over the pairs, the
quartiles of the ratio stand behind it; ± is twice the standard error of that median, over
rounds that open their connections anew. Allocations are counted apart. PASS and FAIL are the medians against the budget; a
"?" says that the budget is no farther off than ±.
`
