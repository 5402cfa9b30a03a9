package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/managedpg/managedpg/leak"
)

// usage is the section of what Usage costs, by line of code who uses a pool, beside leak detection alone. It can't be had apart, so
// its part of a check-in is run a second time.
type usage struct{}

func (usage) close() {}

const usageAbout = `
## Usage

What "by line of code" costs: a checkout and a check-in of leak detection's, beside the same with Usage's part of it done once more. The
connection is held for %v by the clock that leak detection is given, as for a call over loopback, so that one checkout in %d is
a sample, which takes a lock and finds the stack's line.

`

// usageHeld is how long a connection is held, and usageSample of what time leak takes one sample.
const (
	usageHeld   = 50 * time.Microsecond
	usageSample = 10 * time.Millisecond
)

//go:linkname used github.com/managedpg/managedpg/leak.(*Slot).used
func used(s *leak.Slot, since, now time.Duration)

func (usage) run(out io.Writer, quick bool, pick *regexp.Regexp) error {
	if !pick.MatchString("usage: checkout: usage") {
		return nil
	}
	e := fakeSection().full
	if quick {
		e = fakeSection().quick
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var rounds [][]pair
	var r result
	for range e.rounds {
		with, close1 := newUsageBench(true)
		without, close2 := newUsageBench(false)
		defer close1()
		defer close2()
		n, err := calibrate(without, with, e.block)
		if err != nil {
			return err
		}
		if r.baseAllocs, err = without.allocations(e.count); err != nil {
			return err
		}
		if r.allocs, err = with.allocations(e.count); err != nil {
			return err
		}
		end := time.Now().Add(e.each)
		taken, err := takePairs(without.block, with.block, n, func(done int) bool { return done < 3 || time.Now().Before(end) })
		if err != nil {
			return err
		}
		rounds = append(rounds, taken)
	}
	r.summary = summarize(rounds)
	fmt.Fprintf(out, usageAbout, usageHeld, usageSample/usageHeld)
	printRowHead(out)
	printRow(out, "checkout", "usage", "leaks", r, budget{ns: 20, counted: true}.String(), budget{ns: 20, counted: true}.verdict(r))
	return nil
}

// newUsageBench is a bench of one slot.
func newUsageBench(twice bool) (b *bench, stop func()) {
	t := leak.New(leak.Options{Threshold: time.Hour, StackDepth: 16})
	s := t.Slot(1, "localhost:5432/app", 1, nil)
	ctx, now := context.Background(), time.Duration(0)
	return &bench{now: cpu, call: func() error {
		since := now
		now += usageHeld
		s.Waited(0)
		s.CheckOut(ctx, since)
		if twice {
			used(s, since, now)
		}
		s.CheckIn(now)
		return nil
	}}, s.Remove
}
