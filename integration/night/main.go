// Night runs everything that finds bugs by load and by chance, again and again, three at a time: every test binary with the race
// detector, the simulations with new seeds, the ledger, the fuzz targets and the faults that are compared with the bare drivers.
//
//	go run ./night                      two hours
//	go run ./night -for 8h -parallel 4
//	go run ./night -only internal/e2e   those that match
//
// Then it prints a page of what fell out: how often each ran and failed, and of each failure that differs from the others
// what its output says. The whole outputs of failed runs stay in the folder that the page names. It exits with 1 if anything failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

func main() {
	duration := flag.Duration("for", 2*time.Hour, "no job is begun after that")
	parallel := flag.Int("parallel", 3, "how many jobs run at a time")
	only := flag.String("only", "", "only the jobs that match this regular expression")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	good, err := run(ctx, *duration, *parallel, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "night:", err)
		os.Exit(2)
	}
	if !good {
		os.Exit(1)
	}
}

// run prints the page even when it is interrupted.
func run(ctx context.Context, duration time.Duration, parallel int, only string) (good bool, err error) {
	pick, err := regexp.Compile(only)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "night-")
	if err != nil {
		return false, err
	}
	jobs, err := findJobs(ctx, dir, pick)
	if err != nil {
		return false, err
	}
	start := time.Now()
	play(ctx, jobs, parallel, start.Add(duration))
	return page(os.Stdout, jobs, dir, time.Since(start)), nil
}
