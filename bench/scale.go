package main

import (
	"fmt"
	"io"
	"regexp"
	"time"

	"github.com/managedpg/managedpg"
)

// scale is the section of pools from small to large.
type scale struct{}

func (scale) close() {}

// idleBytes is what an idle connection may take above the base driver's.
const idleBytes = 1024

const (
	poolFormat  = "| %11s | %-15s | %17s | %10s | %6s | %-5s | %20s | %12s |\n"
	roundFormat = "| %11s | %13s | %15s |\n"
)

const scaleAbout = `
## Scale

Pools over a base driver that does nothing, everything at its default. Bytes are of the heap, for each idle connection that
has been used; managedpg's are those above "bare", whoever governs, since database/sql keeps as much of a connection that is the
driver's. Queued: 1,000 goroutines wait for the one connection that isn't held; ns from one checkout
to the next, and the 99th percentile of the waits.

`

const roundsAbout = `
A leak scan looks at so many connections that are checked out; a round of the health monitor asks the one endpoint, beside a
pool of so many connections. Medians.

`

func (scale) run(out io.Writer, quick bool, pick *regexp.Regexp) error {
	length := time.Second
	if quick {
		length = 200 * time.Millisecond
	}
	var sizes []int
	for _, n := range []int{10, 100, 1000, 10000} {
		if pick.MatchString(fmt.Sprintf("scale: %d connections", n)) {
			sizes = append(sizes, n)
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	fmt.Fprint(out, scaleAbout)
	fmt.Fprintf(out, poolFormat, "connections", "subject", "B/idle connection", "managedpg's", "budget", "", "ns/checkout, queued", "p99 wait (ms)")
	fmt.Fprintf(out, poolFormat, "--:", "---", "--:", "--:", "--:", "---", "--:", "--:")
	for _, n := range sizes {
		if err := printPools(out, n, length); err != nil {
			return fmt.Errorf("scale: %d connections: %w", n, err)
		}
	}
	fmt.Fprint(out, roundsAbout)
	fmt.Fprintf(out, roundFormat, "connections", "leak scan (µs)", "monitor round (µs)")
	fmt.Fprintf(out, roundFormat, "--:", "--:", "--:")
	for _, n := range sizes {
		round, err := monitorRound(n)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, roundFormat, fmt.Sprint(n), fmt.Sprintf("%.1f", leakScan(n)/1e3), fmt.Sprintf("%.1f", round/1e3))
	}
	return nil
}

// printPools prints the rows of pools of a size.
func printPools(out io.Writer, n int, length time.Duration) error {
	kept := limits{open: n, idle: n}
	bare := &subject{"bare", bareFake, kept}
	bySQL := limited("by database/sql", overFake("", func(*managedpg.Config) {}), kept)
	bytes := map[*subject]float64{}
	for _, r := range []struct{ subject, above *subject }{{bare, nil}, {bySQL, bare}, {governed(n), bare}} {
		p, err := r.subject.grow(n, length)
		if err != nil {
			return fmt.Errorf("%s: %w", r.subject.name, err)
		}
		bytes[r.subject] = p.bytes
		own, budget, verdictText := "", "", ""
		if r.subject != bare {
			ours := p.bytes - bytes[r.above]
			var v verdict
			v.atMost(ours, idleBytes, 0)
			own, budget, verdictText = fmt.Sprintf("%.0f", ours), fmt.Sprint(idleBytes), v.String()
		}
		fmt.Fprintf(out, poolFormat, fmt.Sprint(n), r.subject.name, fmt.Sprintf("%.0f", p.bytes), own, budget, verdictText,
			fmt.Sprintf("%.0f", 1e9/p.queued.perSecond), fmt.Sprintf("%.2f", p.queued.p99/1e6))
	}
	return nil
}

// governed is a pool of a size that the driver governs.
func governed(n int) *subject {
	s := overFake("by the driver", func(c *managedpg.Config) { c.PoolSize, c.MaxOverflow = n, 0 })
	s.limits = limits{}
	return s
}
