package stack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
)

// runtimeCallers is the stack of the caller of the function that calls it.
//
//go:noinline
func runtimeCallers(pcs []uintptr) int { return runtime.Callers(3, pcs) }

func names(pcs []uintptr) string {
	var b strings.Builder
	for it := runtime.CallersFrames(pcs); ; {
		f, more := it.Next()
		fmt.Fprintf(&b, "  %s:%d\n", f.Function, f.Line)
		if !more {
			return b.String()
		}
	}
}

// What Callers says is what the runtime says: a million times, in stacks of all kinds of calls, most of them seen before, while
// a profile's signals come, stacks are moved and shrunk by the collector, and other goroutines look up and add theirs.
func TestMillionStacks(t *testing.T) {
	const rounds, programs, repeats, goroutines = 10, 250, 100, 4
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	if err := pprof.StartCPUProfile(new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	defer pprof.StopCPUProfile()
	stop := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC() // which shrinks stacks
			}
		}
	})
	depths := []int{1, 4, 8, 16, 16, 16, 32, 64, 100}
	for round := range rounds {
		forget()
		seed := rand.New(rand.NewPCG(1, uint64(round)))
		var all [programs]chain
		for i := range all {
			all[i].steps = randomSteps(seed)
		}
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), uint64(round)))
				for range programs * repeats {
					i := r.IntN(programs)
					depth := depths[i%len(depths)]
					c := chain{steps: all[i].steps, check: func() { compare(t, depth) }}
					c.next(0)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			break
		}
	}
	close(stop)
	collector.Wait()
}
