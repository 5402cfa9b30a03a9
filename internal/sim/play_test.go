//go:build simruntime

package sim

import (
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/managedpg/managedpg/internal/conn"
)

var (
	from    = flag.Uint64("from", 1, "the first seed")
	step    = flag.Uint64("step", 1, "to the next")
	number  = flag.Int("number", 1, "how many")
	without = flag.String("without", "", "numbers of faults that are left out, with commas")
	showAll = flag.Bool("all", false, "print what happened")
)

// TestPlay plays seeds, one after the other, and prints a line for each.
func TestPlay(t *testing.T) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1) // who runs next must not depend on it
	tlsConfig()            // nor on whose is the first that needs it
	conn.LearnFrames()
	var drop []int
	for n := range strings.FieldsFuncSeq(*without, func(r rune) bool { return r == ',' }) {
		i, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		drop = append(drop, i)
	}
	for i := range *number {
		seed := *from + uint64(i)**step
		fmt.Printf("seed %d %d\n", seed, len(newPlan(seed).faults))
		var r *Result
		synctest.Test(t, func(t *testing.T) { r = Run(seed, drop...) })
		fmt.Printf("end %016x %d %d\n", r.Hash, r.Calls, r.OK)
		if *showAll {
			fmt.Println(strings.Join(r.Log, "\n"))
		}
		for _, w := range r.Wrong {
			fmt.Printf("wrong %s\n", w)
		}
		var m runtime.MemStats
		if runtime.ReadMemStats(&m); m.HeapAlloc > 256<<20 {
			runtime.GC()
		}
	}
}
