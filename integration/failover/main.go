// Failover breaks real PostgreSQL servers under a load of 8 workers, again and again, and prints what the application saw.
//
//	go run ./failover               every scenario 20 times, with both base drivers, with and without pool_size
//	go run ./failover -quick        3 times, for a first look
//	go run ./failover -only freeze -base pgx -pool present
//
// Each call inserts an id of its own, and remembers what it was told. Afterwards the ids are looked for on the servers: a
// call that was told success must be there exactly once, no call twice, and one that was told that nothing was sent never.
// Replication is synchronous, so that what a server acknowledged is on its standby.
package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"
)

func main() {
	n := flag.Int("n", 20, "how often each scenario is repeated")
	quick := flag.Bool("quick", false, "3 times only")
	only := flag.String("only", "", "only the scenarios that match this regular expression")
	bases := flag.String("base", "pgx,pq", "the base drivers")
	pools := flag.String("pool", "absent,present", "pool_size")
	flag.BoolVar(&untimed, "untimed", false, "judge no times: for a machine that is busy with something else")
	verbose := flag.Bool("v", false, "print each repetition, and what made it fail")
	flag.Parse()
	if *quick {
		*n = 3
	}
	pick, err := regexp.Compile(*only)
	if err == nil {
		var ok bool
		ok, err = run(os.Stdout, *n, pick, strings.Split(*bases, ","), strings.Split(*pools, ","), *verbose)
		if err == nil && !ok {
			os.Exit(1)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

// setup is a base driver and a policy.
type setup struct{ base, pool string }

func (s setup) String() string { return s.base + ", pool_size " + s.pool }

// params are the DSN's.
func (s setup) params() []string {
	p := []string{"base_driver=" + s.base}
	if s.pool == "present" {
		p = append(p, "pool_size=8")
	}
	return p
}

func run(out io.Writer, n int, pick *regexp.Regexp, bases, pools []string, verbose bool) (ok bool, err error) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	dial, err := dials()
	if err != nil {
		return false, err
	}
	fmt.Fprintf(out, "# What a failover costs\n\n- %d workers, each scenario %d times; %s, %d CPUs, %s\n- %s\n%s\n",
		workers, n, runtime.Version(), runtime.NumCPU(), time.Now().UTC().Format("2006-01-02 15:04 MST"), dial, legend)
	ok = true
	for _, s := range scenarios {
		if !pick.MatchString(s.name) {
			continue
		}
		fmt.Fprintf(out, "\n## %s\n\n%s\n\n", s.name, s.bound)
		head(out)
		for _, base := range bases {
			for _, pool := range pools {
				with := setup{base, pool}
				rows, err := repeat(s, with, n, func(rep int, o []outcome) {
					if verbose {
						for _, o := range o {
							fmt.Fprintf(os.Stderr, "%s, %v, %d: %s\n", s.name, with, rep+1, o)
						}
					}
				})
				if err != nil {
					return false, fmt.Errorf("%s, %v: %w", s.name, with, err)
				}
				for _, r := range rows {
					ok = r.print(out, with) && ok
				}
			}
		}
	}
	return ok, nil
}

// repeat runs a scenario n times on one pair of servers. A scenario has a row for each of its parts.
func repeat(s scenario, with setup, n int, each func(int, []outcome)) ([]*row, error) {
	p, err := s.start()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var rows []*row
	for rep := range n {
		outcomes, err := s.run(p, with)
		if err != nil {
			return nil, err
		}
		each(rep, outcomes)
		for i, o := range outcomes {
			if i == len(rows) {
				rows = append(rows, &row{part: o.part})
			}
			rows[i].add(o)
		}
		if rep == n-1 {
			break
		}
		if err := s.mend(p); err != nil {
			return nil, err
		}
	}
	return rows, nil
}
