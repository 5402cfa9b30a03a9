package leak

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"reflect"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"time"
)

// UsageProfileName is the name of the profile of what was used since the start, at /debug/pprof/managedpg.usage and in pprof.Lookup:
// for each caller the number of its checkouts and the time they were held, estimated from samples.
const UsageProfileName = "managedpg.usage"

// ProfileName is the name of the profile of checkouts, at /debug/pprof/managedpg.checkouts and in pprof.Lookup.
const ProfileName = "managedpg.checkouts"

// open are the trackers that have slots.
var open struct {
	sync.Mutex
	trackers map[*Tracker]struct{}
}

func register(t *Tracker) {
	open.Lock()
	defer open.Unlock()
	if open.trackers == nil {
		open.trackers = make(map[*Tracker]struct{})
	}
	open.trackers[t] = struct{}{}
}

func unregister(t *Tracker) {
	open.Lock()
	defer open.Unlock()
	delete(open.trackers, t)
}

func openTrackers() []*Tracker {
	open.Lock()
	defer open.Unlock()
	trackers := slices.Collect(maps.Keys(open.trackers))
	slices.SortFunc(trackers, func(a, b *Tracker) int { return strings.Compare(a.options.Pool, b.options.Pool) })
	return trackers
}

// The profile is made one of runtime/pprof's, so that net/http/pprof lists and serves it. It is built when it is read.
// Profile.Add can't do that: it must be called at each checkout, costs more than all the rest of one, and knows no time held.
// So the two functions are set that runtime/pprof has for its own profiles.
//
// They aren't exported, and to set them goes round the type system, as unsafe does. It can't go wrong unseen: what is set
// are a func() int named count and a func(io.Writer, int) error named write, or nothing; at no time but the start of the
// program; and a panic is no more than a no. So should a Go version not have them any more, the profile isn't listed and
// WriteProfile remains.
var (
	_ = list(ProfileName, heldByAll, writeProfile)
	_ = list(UsageProfileName, usersOfAll, writeUsage)
)

func heldByAll() int {
	n := 0
	for _, t := range openTrackers() {
		n += t.held()
	}
	return n
}

func usersOfAll() int { return len(usageGroups()) }

func list(name string, count func() int, write func(io.Writer, int) error) (done bool) {
	defer func() {
		if recover() != nil {
			done = false
		}
	}()
	fields := map[string]reflect.Value{"count": reflect.ValueOf(count), "write": reflect.ValueOf(write)}
	for name, value := range fields {
		f, ok := reflect.TypeFor[pprof.Profile]().FieldByName(name)
		if !ok || f.Type != value.Type() {
			return false
		}
	}
	if pprof.Lookup(name) != nil {
		return false // a second copy of the module, vendored
	}
	profile := reflect.ValueOf(pprof.NewProfile(name)).Elem()
	for field, value := range fields {
		f := profile.FieldByName(field)
		reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().Set(value)
	}
	return true
}

func (t *Tracker) held() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, s := range t.slots {
		if s.state.Load() != 0 {
			n++
		}
	}
	return n
}

// WriteProfile writes who holds connections now, of all pools, as a profile for "go tool pprof": for each caller the number
// of checkouts and the time they have been held so far. Stacks begin at the caller. Samples have the tags pool, endpoint
// and the pprof labels of the checkout's context.
func WriteProfile(w io.Writer) error { return writeProfile(w, 0) }

// writeProfile follows pprof.Profile.WriteTo: debug 0 is the protocol buffer, else it is text.
func writeProfile(w io.Writer, debug int) error {
	groups := checkouts()
	if debug == 0 {
		return encodeProfile(w, groups, time.Now())
	}
	return printProfile(w, ProfileName, groups)
}

// WriteUsageProfile writes which lines of code have used the pools' time since the start, of all open pools, as a profile for
// "go tool pprof". Samples have the tag pool.
func WriteUsageProfile(w io.Writer) error { return writeUsage(w, 0) }

func writeUsage(w io.Writer, debug int) error {
	if groups := usageGroups(); debug == 0 {
		return encodeProfile(w, groups, time.Now())
	} else {
		return printProfile(w, UsageProfileName, groups)
	}
}

// group is the checkouts of one pool by one stack.
type group struct {
	frames []runtime.Frame // from the caller outwards
	tags   [][2]string     // sorted, pool first
	count  int
	held   time.Duration // all together
	oldest time.Duration
}

// checkouts are the groups of all pools, the longest held first.
func checkouts() []*group {
	groups := make(map[string]*group)
	for _, t := range openTrackers() {
		now := t.Now()
		for _, snap := range t.snapshots(now, func(state, time.Duration) bool { return true }, -1) {
			labels := labelMap(snap.labels)
			tags := [][2]string{{"pool", t.options.Pool}, {"endpoint", snap.slot.endpoint}}
			for _, key := range slices.Sorted(maps.Keys(labels)) {
				tags = append(tags, [2]string{key, labels[key]})
			}
			key := fmt.Sprintf("%x%q", snap.stack, tags)
			g := groups[key]
			if g == nil {
				frames := framesOf(snap.stack)
				_, caller := t.callers.find(frames)
				g = &group{frames: frames[max(caller, 0):], tags: tags}
				groups[key] = g
			}
			held := max(now-snap.state.since(), 0)
			g.count++
			g.held += held
			g.oldest = max(g.oldest, held)
		}
	}
	return slices.SortedFunc(maps.Values(groups), func(a, b *group) int {
		return int(min(max(b.held-a.held, -1), 1))
	})
}

// printProfile writes what runtime/pprof writes for its own profiles, and the time held.
func printProfile(w io.Writer, name string, groups []*group) error {
	b := bufio.NewWriter(w)
	total := 0
	for _, g := range groups {
		total += g.count
	}
	fmt.Fprintf(b, "%s profile: total %d\n", name, total)
	for _, g := range groups {
		fmt.Fprintf(b, "%d @", g.count)
		for _, f := range g.frames {
			fmt.Fprintf(b, " %#x", f.PC+1)
		}
		fmt.Fprintf(b, "\n#\theld %s", g.held.Round(time.Millisecond))
		if g.oldest > 0 {
			fmt.Fprintf(b, ", the oldest %s", g.oldest.Round(time.Millisecond))
		}
		for _, tag := range g.tags {
			fmt.Fprintf(b, ", %s %q", tag[0], tag[1])
		}
		fmt.Fprintln(b)
		for _, f := range g.frames {
			fmt.Fprintf(b, "#\t%#x\t%s+%#x\t%s:%d\n", f.PC, f.Function, f.PC-f.Entry, f.File, f.Line)
		}
		fmt.Fprintln(b)
	}
	return b.Flush()
}
