//go:build !simruntime

package sim_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A run is to be played again to the same end, so nothing in it may be left to chance. What the program decides follows from the seed. What
// Go's runtime leaves to chance (which case of a select, the order of a map, of two timers at one instant, math/rand's source) follows from it
// in a runtime that is changed a little. In that who waits for a mutex counts as blocked too, so that fake time goes on while
// somebody waits for the network with one in hand, as database/sql does. The changed files stand in for the installed ones in the build
// of the program that plays, and nowhere else (go help build, -overlay).

// change is one place in a file of Go's, and what stands there then.
type change struct{ file, old, new string }

var changes = []change{
	{"runtime/rand.go", "// bootstrapRand returns", `// seedBubble begins the calling bubble's own sequence of chance.
//
//go:linkname seedBubble github.com/managedpg/managedpg/internal/sim.seedBubble
func seedBubble(seed uint64) { b := getg().bubble; b.seeded, b.seed, b.chance = true, seed, seed }

//go:nosplit
func seededBubble() *synctestBubble {
	gp := getg()
	if c := gp.m.curg; c != nil {
		gp = c
	}
	if b := gp.bubble; b != nil && b.seeded {
		return b
	}
	return nil
}

//go:nosplit
func mixed(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// chosen is the next of the bubble's sequence.
//
//go:linkname chosen
//go:nosplit
func chosen() uint64 {
	b := seededBubble()
	if b == nil {
		return rand()
	}
	b.chance += 0x9e3779b97f4a7c15
	return mixed(b.chance)
}

// bootstrapRand returns`},
	{"math/rand/v2/rand.go", "//go:linkname runtime_rand runtime.rand\n", "//go:linkname runtime_rand runtime.chosen\n"},
	// What maps take is no part of the sequence, as some are made once in a process.
	{"runtime/rand.go", "	mp := getg().m\n	c := &mp.chacha8\n", "	if b := seededBubble(); b != nil {\n		return mixed(b.seed + uint64(b.now))\n	}\n" +
		"	mp := getg().m\n	c := &mp.chacha8\n"},
	// The keys of maps' hashes, of one process after the other.
	{"runtime/rand.go", "	globalRand.state.Init(*seed)\n", "	*seed = [32]byte{1}\n	globalRand.state.Init(*seed)\n"},
	{"runtime/select.go", "cheaprandn(uint32(norder + 1))", "uint32(chosen() % uint64(norder+1))"},
	{"runtime/time.go", "t.rand = cheaprand()", "t.rand = uint32(chosen())"},
	// The keys of maps' hashes, of one process after the other.
	{"runtime/rand.go", "	globalRand.state.Init(*seed)\n", "	*seed = [32]byte{1}\n	globalRand.state.Init(*seed)\n"},
	{"runtime/synctest.go", "	now     int64  // current fake time\n", "	now     int64  // current fake time\n	seeded  bool\n	seed    uint64\n	chance  uint64\n"},
	{"runtime/runtime2.go", "	waitReasonSyncCondWait:          true,\n", "	waitReasonSyncCondWait:          true,\n" +
		"	waitReasonSyncMutexLock: true, waitReasonSyncRWMutexRLock: true, waitReasonSyncRWMutexLock: true,\n"},
	{"runtime/proc.go", "if pp.schedtick%61 == 0 && !sched.runq.empty() {", "if false {"},
	{"runtime/proc.go", "} else if pd.schedwhen+forcePreemptNS <= now {", "} else if false {"},
	{"internal/sync/mutex.go", "starving = starving || runtime_nanotime()-waitStartTime > starvationThresholdNs", "starving = starving || false && waitStartTime > starvationThresholdNs"},
	// lib/pq, for which a program can't name a dialer, is given the simulated network where ours asks the system for a connection or a name.
	{"../wire/dial.go", "	return nd.DialContext(ctx, network, address)\n}\n", `	_ = nd
	return simulated.dial(ctx, network, address)
}

var simulated struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	lookup func(ctx context.Context, name string) ([]string, error)
}

// LookupSimulated asks the simulated name server.
func LookupSimulated(ctx context.Context, name string) ([]string, error) { return simulated.lookup(ctx, name) }
`},
	{"../base/pq.go", "net.DefaultResolver.LookupHost(", "wire.LookupSimulated("},
	// The program's own clock begins where a bubble's does, less a second.
	{"../clock/clock.go", "var started = time.Now()", "var started = time.Unix(946684800-1, 0)"},
}

// nicely leaves the processors to the tests beside this one, whose time isn't fake.
func nicely(name string, args ...string) *exec.Cmd {
	return exec.Command("nice", append([]string{"-n", "10", name}, args...)...)
}

// goCommand is the go command of the version that the changes are known for. Where that isn't the one at hand it is fetched.
func goCommand(args ...string) *exec.Cmd {
	c := nicely("go", args...)
	c.Env = append(os.Environ(), "GOTOOLCHAIN=go1.26.8")
	return c
}

// overlay writes the changed files into dir, and gives the path of what the go command is to read.
func overlay(dir string, more ...change) (string, error) {
	out, err := goCommand("env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return "", err
	}
	root, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	texts := make(map[string]string)
	for _, c := range append(slices.Clone(changes), more...) {
		path := filepath.Join(root, "src", filepath.FromSlash(c.file))
		if strings.HasPrefix(c.file, ".") {
			if path, err = filepath.Abs(c.file); err != nil {
				return "", err
			}
		}
		text, ok := texts[path]
		if !ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		if !strings.Contains(text, c.old) {
			return "", fmt.Errorf("%s of %s is not as it was known to be: %q", c.file, version, c.old)
		}
		texts[path] = strings.ReplaceAll(text, c.old, c.new)
	}
	replace := make(map[string]string)
	for path, text := range texts {
		replace[path] = filepath.Join(dir, strings.ReplaceAll(path, string(filepath.Separator), "_"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}
