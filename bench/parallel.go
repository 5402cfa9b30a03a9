package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"time"

	"github.com/managedpg/managedpg/bench/internal/quantile"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// parallel is the section of crowds.
type parallel struct {
	cluster  *pgtest.Cluster
	contests []contest
}

// contest is a crowd with one subject after the other.
type contest struct {
	name string
	crowd
	subjects []*subject // the first is what the others are compared with
	claims   []claim
}

// claim is what a subject promises of a figure, beside another one's.
type claim struct {
	subject *subject
	figure  figure
	times   float64
	of      *subject
}

// figure is something of a turnout.
type figure struct {
	name string
	of   func(turnout) float64
	more bool // is better
}

var (
	throughput = figure{"calls/s", func(t turnout) float64 { return t.perSecond }, true}
	p99        = figure{"p99 wait", func(t turnout) float64 { return t.p99 }, false}
	unevenness = figure{"longest/median wait", func(t turnout) float64 { return t.longest / t.median }, false}
)

func (c claim) String() string {
	sign := "≤"
	if c.figure.more {
		sign = "≥"
	}
	return fmt.Sprintf("%s %s %.2f times %s's", c.figure.name, sign, c.times, c.of.name)
}

func parallelSection() (*parallel, error) {
	cluster, err := pgtest.New(pgtest.Conf("max_connections=300")) // closed ones linger
	if err != nil {
		return nil, err
	}
	dsn := func(params ...string) string { return cluster.DSNFor("postgres", params...) }
	var (
		pgx      = registered("bare pgx, 8 idle", "pgx", dsn())
		defaults = limited("bare pgx", pgx, limits{})
		capped   = limits{open: poolSize, idle: poolSize}
		pgx8     = limited("bare pgx, 8 open", pgx, capped)
		pool     = pgxpool(dsn())
		bySQL    = registered("by database/sql, 8 idle", "managedpg", dsn())
		bySQL8   = limited("by database/sql, 8 open", bySQL, capped)
		byUs     = limited("by the driver", registered("", "managedpg", dsn(fmt.Sprintf("pool_size=%d", poolSize), "max_overflow=0")), limits{idle: 64})
	)
	p := &parallel{cluster: cluster}
	p.contests = append(p.contests, contest{
		"8 in a tight loop", crowd{workers: 8, call: answer}, []*subject{pgx, defaults, pool, bySQL, byUs},
		[]claim{{byUs, throughput, 1, pgx}, {byUs, throughput, 1, pool}},
	})
	for _, think := range []time.Duration{200 * time.Microsecond, time.Millisecond} {
		for _, workers := range []int{8, 32} {
			p.contests = append(p.contests, contest{
				fmt.Sprintf("%d that think for %v", workers, think), crowd{workers, think, answer},
				[]*subject{defaults, pgx, pool, bySQL, byUs},
				[]claim{{byUs, throughput, 3, defaults}},
			})
		}
	}
	on8 := []*subject{pgx8, pool, bySQL8, byUs}
	p.contests = append(p.contests, contest{
		"64 on 8 connections", crowd{workers: 64, call: answer}, on8,
		[]claim{{byUs, throughput, 1, pgx8}, {byUs, p99, 1, pgx8}, {byUs, throughput, 1, pool}},
	}, contest{
		"64 on 8, by sql.Conn", crowd{workers: 64, call: connection}, on8,
		[]claim{{byUs, throughput, 1, pgx8}, {byUs, p99, 1, pgx8}, {byUs, unevenness, 1, pgx8}, {byUs, unevenness, 1, pool}},
	})
	return p, nil
}

func (p *parallel) close() { _ = p.cluster.Close() }

const (
	parallelFormat = "| %-23s | %-23s | %7s | %21s | %5s | %11s | %8s | %14s |\n"
	claimFormat    = "| %-23s | %-15s | %-55s | %8s | %5s | %-5s |\n"
)

func (p *parallel) run(out io.Writer, quick bool, pick *regexp.Regexp) error {
	rounds, length := 12, 400*time.Millisecond
	if quick {
		rounds, length = 2, 200*time.Millisecond
	}
	var done []*heats
	for i := range p.contests {
		c := &p.contests[i]
		if !pick.MatchString("parallel: " + c.name) {
			continue
		}
		if len(done) == 0 {
			fmt.Fprint(out, parallelAbout)
			fmt.Fprintf(out, parallelFormat, "goroutines", "subject", "calls/s", "ratio (quartiles)", "±", "median wait", "p99", "longest/median")
			fmt.Fprintf(out, parallelFormat, "---", "---", "--:", "---", "--:", "--:", "--:", "--:")
		}
		h, err := c.heats(rounds, length)
		if err != nil {
			return err
		}
		h.print(out)
		done = append(done, h)
	}
	if len(done) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	fmt.Fprintf(out, claimFormat, "goroutines", "subject", "budget", "measured", "±", "")
	fmt.Fprintf(out, claimFormat, "---", "---", "---", "--:", "--:", "---")
	for _, h := range done {
		h.judge(out)
	}
	return nil
}

const parallelAbout = `
## PostgreSQL, parallel

Goroutines that each execute SELECT 1 again and again; client and server are left to the system. The time to think is between
two calls. Waits are for the answer, but by sql.Conn for the connection alone, and in µs. pgxpool and "by the driver", which is
pool_size=8&max_overflow=0, have 8 connections; "8 open" has them too, by SetMaxOpenConns and SetMaxIdleConns; "8 idle" opens
as many as are asked for and keeps 8; "bare pgx" keeps 2, as database/sql does by itself. Leak detection is on. Ratios of
calls/s are to the first subject's, round by round; medians of all.

"bare pgx, 8 idle" is what there is to be had with 8 that think: whoever keeps 8 connections has that.

`

// heats are a contest's turnouts, by subject and round.
type heats struct {
	*contest
	turnouts map[*subject][]turnout
}

// heats runs all subjects in each round, in an order drawn by lot.
func (c *contest) heats(rounds int, length time.Duration) (*heats, error) {
	h := &heats{c, map[*subject][]turnout{}}
	for range rounds {
		for _, i := range rand.Perm(len(c.subjects)) {
			s := c.subjects[i]
			t, err := c.heat(s, length)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.name, s.name, err)
			}
			h.turnouts[s] = append(h.turnouts[s], t)
		}
	}
	return h, nil
}

// heat is a subject's part of a round: a quarter of the time to warm up, and the time itself.
func (c *contest) heat(s *subject, length time.Duration) (turnout, error) {
	db, err := s.db()
	if err != nil {
		return turnout{}, err
	}
	defer db.Close()
	if _, err := c.crowd.run(db, length/4); err != nil {
		return turnout{}, err
	}
	return c.crowd.run(db, length)
}

func (h *heats) print(out io.Writer) {
	for _, s := range h.subjects {
		ratio := h.beside(s, h.subjects[0], throughput)
		fmt.Fprintf(out, parallelFormat, h.name, s.name,
			fmt.Sprintf("%.0f", h.median(s, throughput.of)),
			fmt.Sprintf("%.2f (%.2f-%.2f)", ratio.ratio, ratio.q1, ratio.q3),
			fmt.Sprintf("%.2f", ratio.ratioError),
			fmt.Sprintf("%.0f", h.median(s, func(t turnout) float64 { return t.median })/1e3),
			fmt.Sprintf("%.0f", h.median(s, p99.of)/1e3),
			fmt.Sprintf("%.1f", h.median(s, unevenness.of)))
	}
}

// judge holds the subjects' claims against what was measured.
func (h *heats) judge(out io.Writer) {
	for _, c := range h.claims {
		got := h.beside(c.subject, c.of, c.figure)
		var v verdict
		if c.figure.more {
			v.atLeast(got.ratio, c.times, got.ratioError)
		} else {
			v.atMost(got.ratio, c.times, got.ratioError)
		}
		fmt.Fprintf(out, claimFormat, h.name, c.subject.name, c, fmt.Sprintf("%.2f", got.ratio), fmt.Sprintf("%.2f", got.ratioError), v)
	}
}

func (h *heats) median(s *subject, of func(turnout) float64) float64 {
	var values []float64
	for _, t := range h.turnouts[s] {
		values = append(values, of(t))
	}
	return quantile.Median(values)
}

// beside compares a figure of two subjects, round by round.
func (h *heats) beside(s, base *subject, f figure) summary {
	var rounds [][]pair
	for i, t := range h.turnouts[s] {
		rounds = append(rounds, []pair{{base: f.of(h.turnouts[base][i]), subject: f.of(t)}})
	}
	return summarize(rounds)
}
