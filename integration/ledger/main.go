// Ledger moves money under fire. Writers transfer it between accounts in transactions of several statements and note single
// statements, readers check that the sum never moves, some of them on standbys, and each remembers what it was told; the contexts of some end at random.
// Meanwhile a nemesis kills, freezes, cuts off, fills up and fails over PostgreSQL servers whose replication is synchronous. In the end the ledger is held against
// the database: what was told ok must be there exactly once, what was told failed must not be there, the rest at most once.
//
//	go run ./ledger                              10 minutes in all: bare pgx and lib/pq, and managedpg over both
//	go run ./ledger -seed 42 -drivers managedpg-pgx -duration 1m
//	go run ./ledger -faults kill -count 200      200 failovers for each driver, whatever time that takes
//
// A seed gives the same faults in the same order, for the same times. The history of a run that failed is kept. An interrupt
// ends the faults; what happened until then is checked.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// config is a run of one driver.
type config struct {
	sys      *system
	seed     uint64
	duration time.Duration
	faults   string
	count    int
	keep     string // folder for histories; "" for none
	always   bool   // keep it even if nothing failed
	verbose  bool   // print each fault
}

func main() {
	duration := flag.Duration("duration", 10*time.Minute, "of all drivers together")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of everything that is chosen at random")
	drivers := flag.String("drivers", "pgx,pq,managedpg-pgx,managedpg-pq", "add -sql to managedpg's for a pool that database/sql governs")
	only := flag.String("faults", "", "only the faults with this in their name")
	count := flag.Int("count", 0, "so many faults for each driver, in place of -duration")
	keep := flag.String("keep", ".", "where to keep the histories of runs that failed")
	always := flag.Bool("history", false, "keep the others too")
	verbose := flag.Bool("v", false, "print each fault")
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler))

	fmt.Printf("seed %d\n\n", *seed)
	var all []*system
	for name := range strings.SplitSeq(*drivers, ",") {
		sys, err := systems(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "ledger:", err)
			os.Exit(2)
		}
		all = append(all, sys)
	}
	each := *duration / time.Duration(len(all))
	if *count > 0 {
		each = 24 * time.Hour
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good := true
	var reports []*report
	for i, sys := range all {
		if ctx.Err() != nil {
			all = all[:i]
			break
		}
		r, err := run(ctx, config{sys, *seed, each, *only, *count, *keep, *always, *verbose})
		if err != nil {
			fmt.Fprintf(os.Stderr, "ledger: %s: %v\n", sys.name, err)
			os.Exit(1)
		}
		reports = append(reports, r)
		for _, w := range r.wrong(sys) {
			fmt.Printf("%s: %s\n", sys.name, w)
			good = good && !sys.resolves // the bare drivers are there to compare
		}
	}
	table(os.Stdout, all, reports)
	if !good {
		os.Exit(1)
	}
}

// run is one driver's.
func run(ctx context.Context, c config) (*report, error) {
	s, err := startServers()
	if err != nil {
		return nil, err
	}
	defer s.close()
	return runOn(ctx, s, c)
}

func runOn(ctx context.Context, s *servers, c config) (*report, error) {
	if err := s.first().Exec(schema...); err != nil {
		return nil, err
	}
	db, err := c.sys.open(s)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	h := &history{began: time.Now()}
	w := &work{history: h, sys: c.sys, db: db, seed: c.seed, stop: make(chan struct{})}
	n := &nemesis{history: h, servers: s, random: rand.New(rand.NewPCG(c.seed, 1<<32)), only: c.faults, verbose: c.verbose,
		strict: c.sys.resolves}
	w.start()
	failure := n.run(ctx, c.duration, c.count)
	if err := n.recovered(context.WithoutCancel(ctx)); failure == nil && n.strict {
		failure = err
	}
	w.finish()
	if err := db.Close(); err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, failure
	}
	if err := s.ready(); err != nil {
		return nil, err
	}
	// Whoever was told unknown may still have a session at work.
	if _, err := s.first().TerminateBackends(); err != nil {
		return nil, err
	}
	reading, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := readState(reading, s.first().DSN())
	if err != nil {
		return nil, err
	}
	r := check(c.sys, h, st)
	if c.keep != "" && (c.always || len(r.wrong(c.sys)) > 0) {
		path := filepath.Join(c.keep, fmt.Sprintf("ledger-%s-%d.jsonl", c.sys.name, c.seed))
		if err := keepHistory(h, path); err != nil {
			return nil, err
		}
		fmt.Printf("%s: history in %s\n", c.sys.name, path)
	}
	return r, nil
}

func keepHistory(h *history, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := h.write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// table prints the reports side by side.
func table(out io.Writer, all []*system, reports []*report) {
	row := func(name string, cell func(*report, *system) string) {
		fmt.Fprintf(out, "| %s |", name)
		for i, r := range reports {
			fmt.Fprintf(out, " %s |", cell(r, all[i]))
		}
		fmt.Fprintln(out)
	}
	row("", func(_ *report, s *system) string { return s.name })
	fmt.Fprintln(out, "|---|"+strings.Repeat("---|", len(reports)))
	for _, f := range faults {
		row(f.kind, func(r *report, _ *system) string { return fmt.Sprint(r.faults[f.kind]) })
	}
	counted := func(get func(*report) count) func(*report, *system) string {
		return func(r *report, _ *system) string {
			c := get(r)
			return fmt.Sprintf("%d / %d / %d", c.ok, c.failed, c.unknown)
		}
	}
	row("transfers: ok / failed / unknown", counted(func(r *report) count { return r.transfers }))
	row("single statements", counted(func(r *report) count { return r.notes }))
	row("reads", counted(func(r *report) count { return r.sums }))
	row("reads that may be old", counted(func(r *report) count { return r.reads }))
	row("of them, on a standby", func(r *report, _ *system) string { return fmt.Sprint(r.old) })
	row("of them, with a context that ends at random", counted(func(r *report) count { return r.brief }))
	row("lost", func(r *report, _ *system) string { return fmt.Sprint(len(r.lost)) })
	row("doubled", func(r *report, _ *system) string { return fmt.Sprint(len(r.doubled)) })
	row("told failed, and there", func(r *report, _ *system) string { return fmt.Sprint(len(r.untrue)) })
	row("sum moved", func(r *report, _ *system) string { return fmt.Sprint(len(r.moved)) })
	row("commits in doubt after a fault that the server survived, unresolved", func(r *report, s *system) string {
		n := 0
		for _, f := range faults {
			if f.resolvable {
				n += r.doubtful[f.kind]
			}
		}
		return fmt.Sprint(n)
	})
	row("longest gap between two oks", func(r *report, _ *system) string { return r.gap.Round(time.Millisecond).String() })
}
