// Race takes a server away from a load of 8 workers, in the same way from bare drivers, pools and managedpg, and prints what
// the application saw of it.
//
//	go run ./race          every fault 5 times for each subject, an hour
//	go run ./race -quick   once, and a shorter time of resets: some minutes
//	go run ./race -only freeze -n 3
//
// Each call inserts an id of its own within a deadline of 2 s. Afterwards the ids are looked for on the servers: one that is
// there twice was sent twice.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"regexp"
	"time"

	"github.com/managedpg/managedpg/bench/internal/machine"
)

func main() {
	n := flag.Int("n", 5, "how often each fault is repeated")
	quick := flag.Bool("quick", false, "each fault once, and 10 s of resets")
	only := flag.String("only", "", "only the faults that match this regular expression")
	verbose := flag.Bool("v", false, "print each run as it ends")
	flag.Parse()
	resetting := time.Minute
	if *quick {
		*n, resetting = 1, 10*time.Second
	}
	pick, err := regexp.Compile(*only)
	if err == nil {
		err = run(os.Stdout, *n, resetting, pick, *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "race:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, n int, resetting time.Duration, pick *regexp.Regexp, verbose bool) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	fmt.Fprintf(out, "%s\n%s", machine.Head("Losing a server", "go run ./race"), legend)
	for _, f := range faults(resetting) {
		if !pick.MatchString(f.name) {
			continue
		}
		all, err := f.repeat(n, verbose)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		fmt.Fprintf(out, "\n## %s\n\n%s %d times.\n\n", f.name, f.about, n)
		printTable(out, all)
	}
	return nil
}

// repeat runs all subjects through a fault, in an order drawn by lot, n times.
func (f *fault) repeat(n int, verbose bool) (map[*subject][]outcome, error) {
	p, err := f.start()
	if err != nil {
		return nil, err
	}
	defer p.close()
	all := map[*subject][]outcome{}
	for range n {
		for _, i := range rand.Perm(len(subjects)) {
			s := subjects[i]
			o, err := f.race(p, s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if verbose {
				fmt.Fprintf(os.Stderr, "%s: %s: %.0f\n", f.name, s.name, o)
			}
			all[s] = append(all[s], o)
		}
	}
	return all, nil
}

const legend = `Two servers in one DSN, the same for all; 8 workers, each with a connection of its own to find in the pool, that insert a row
every 2 ms within a deadline of 2 s. Nothing else is set: connect timeouts, health checks and so on are everyone's defaults.

- errors: calls that failed, or had no answer yet when the watch ended; median
- doubled: statements that ran twice; in all repetitions
- first success: until a call succeeds again, on the other server where one was lost; median
- steady: until the last call that fails, or takes 100 ms longer than usual; median. "never": not while it was watched
- calls over 1 s: median

"best" and "not" say whether managedpg is at least as good as every peer in that column, and "?" that the repetitions differ
by more. Times within a tenth and 10 ms count as equal. Errors are compared with peers that ran nothing twice in that table:
who sends again whatever was lost has few errors, and doubles.
`
