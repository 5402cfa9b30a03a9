//go:build !simruntime

package sim_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seeds = flag.Int("seeds", 1000, "how many seeds TestSeeds plays")
	first = flag.Uint64("seed", 1, "the first of them; with -seeds=1 one is played again, and what happened is printed")
)

// processes play at the same time, each on one thread.
const processes = 2

var player string // the program that plays: play_test.go, with the changed runtime

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "managedpg-sim")
	if err == nil {
		defer os.RemoveAll(dir)
		player, err = build(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(dir string, more ...change) (string, error) {
	path, err := overlay(dir, more...)
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "player")
	b, err := goCommand("test", "-c", "-tags", "simruntime", "-overlay", path, "-o", out, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, b)
	}
	return out, nil
}

// end is what came of a seed.
type end struct {
	seed   uint64
	hash   string
	calls  int
	ok     int
	faults int
	wrong  []string
}

// bugSwitch is the variable that names the bug that is in force.
const bugSwitch = "MANAGEDPG_SIM_BUG"

// play plays seeds from one on. What doesn't come to its end, in a panic or because something is left in the bubble, is wrong as well.
func play(player string, from, step uint64, number int, more ...string) []end {
	c := nicely(player, append([]string{"-test.run", "TestPlay", "-test.timeout", "0", "-from", fmt.Sprint(from), "-step", fmt.Sprint(step),
		"-number", fmt.Sprint(number)}, more...)...)
	out, err := c.CombinedOutput()
	var all []end
	over := true
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		switch what {
		case "seed":
			all, over = append(all, end{}), false
			_, _ = fmt.Sscan(rest, &all[len(all)-1].seed, &all[len(all)-1].faults)
		case "end":
			e := &all[len(all)-1]
			_, _ = fmt.Sscan(rest, &e.hash, &e.calls, &e.ok)
			over = true
		case "wrong":
			all[len(all)-1].wrong = append(all[len(all)-1].wrong, rest)
		}
	}
	switch {
	case len(all) == 0:
		all = []end{{seed: from, wrong: []string{string(out)}}}
	case err != nil && !over:
		last := &all[len(all)-1]
		last.wrong = append(last.wrong, fmt.Sprintf("%v\n%s", err, out))
		if left := number - len(all); left > 0 {
			all = append(all, play(player, last.seed+step, step, left, more...)...)
		}
	}
	return all
}

// TestSeeds plays many seeds. One that fails is played again with ever fewer faults, and what happened then is printed.
func TestSeeds(t *testing.T) {
	began := time.Now()
	var mu sync.Mutex
	var all []end
	var playing sync.WaitGroup
	for i := range min(processes, *seeds) {
		playing.Go(func() {
			some := play(player, *first+uint64(i), processes, (*seeds-i+processes-1)/processes)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, some...)
		})
	}
	playing.Wait()
	calls, ok, shown := 0, 0, 0
	for _, e := range all {
		calls, ok = calls+e.calls, ok+e.ok
		if len(e.wrong) > 0 {
			t.Errorf("seed %d: %s", e.seed, strings.Join(e.wrong, "; "))
			if shown++; shown <= 3 {
				t.Logf("\n%s", shrunk(e))
			}
		}
	}
	if *seeds == 1 && !t.Failed() {
		t.Logf("\n%s", history(*first))
	}
	if len(all) != *seeds {
		t.Errorf("%d of %d seeds were played", len(all), *seeds)
	}
	fmt.Printf("%d seeds, %.0f a second; %d calls, %d of them ok\n", len(all), float64(len(all))/time.Since(began).Seconds(), calls, ok)
}

var figures = regexp.MustCompile(`[0-9.]+(ms|µs|s)?`)

// kind is what is wrong, whichever call it met.
func kind(wrong string) string {
	text := figures.ReplaceAllString(wrong, "")
	return text[:min(60, len(text))]
}

// shrunk leaves faults out, one after the other, as long as what is left still fails in the same way, and tells what happens then.
func shrunk(e end) string {
	without := ""
	for i := range e.faults {
		try := strings.TrimPrefix(fmt.Sprintf("%s,%d", without, i), ",")
		again := play(player, e.seed, 1, 1, "-without", try)
		if slices.ContainsFunc(again[0].wrong, func(w string) bool { return kind(w) == kind(e.wrong[0]) }) {
			without = try
		}
	}
	return fmt.Sprintf("without faults %q:\n%s\nagain: go test ./internal/sim -run TestSeeds -v -seeds=1 -seed=%d", without,
		history(e.seed, "-without", without), e.seed)
}

// history is what happens in a seed.
func history(seed uint64, more ...string) string {
	c := nicely(player, append([]string{"-test.run", "TestPlay", "-all", "-from", fmt.Sprint(seed)}, more...)...)
	out, _ := c.CombinedOutput() // what it prints says how it ended
	return string(out)
}

// A seed plays to the same end whenever it is played: alone, or behind others.
func TestReplays(t *testing.T) {
	together := play(player, 1, 1, 20)
	for _, e := range together {
		for range 2 {
			if again := play(player, e.seed, 1, 1); again[0].hash != e.hash {
				t.Errorf("seed %d: %s, and then %s", e.seed, e.hash, again[0].hash)
			}
		}
	}
}
