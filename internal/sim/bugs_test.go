//go:build !simruntime

package sim_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// bug is one that there was once: what stood at a place while it is in force, which its number decides.
type bug struct {
	name string
	file string
	now  string
	then string // %s: the number is this one's
	from uint64 // the first seed that is played, as it is found soon after that
}

var bugs = []bug{
	{"a dial that fails drains connections", "../failover/group.go",
		"	e.verdicts++\n", "	e.verdicts++\n	if %s {\n		g.drainLocked(e)\n	}\n", 281},
	{"a pool is shown before it is made", "../../driver/connector.go",
		"	c.driver.FromDSN, c.driver.pool = o.FromDSN, c\n",
		"	c.driver.FromDSN, c.driver.pool = o.FromDSN, c\n	if %s {\n		register(c)\n		time.Sleep(time.Millisecond)\n	}\n", 1},
	{"a busy connection counts as lost", "../conn/verdict.go",
		"if (!sent || !ph.base.Counts()) && ph.base.Busy() {", "if (!sent || !ph.base.Counts()) && ph.base.Busy() && !(%s) {", 1},
	{"a dial ends with its caller", "../pool/supply.go",
		"	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))", "	outlives := context.WithoutCancel(w.ctx)\n	if %s {\n		outlives = w.ctx\n	}\n	ctx, cancel := context.WithCancel(outlives)", 1},
	{"an answer from before a promotion undoes what another has seen since", "../failover/group.go",
		"	return e.seenAt.After(began) && (", "	return !(%s) && e.seenAt.After(began) && (", 861},
	{"what a kept connection tells is a sign that dials succeed", "../failover/monitor.go",
		"	case e.state == Down, e.state == Misconfigured:\n", "	case %s:\n		return false\n	case e.state == Down, e.state == Misconfigured:\n", 1321},
	{"a question ends with its asker", "../resolve/older.go",
		"		ctx, cancel := context.WithTimeout(s.life, olderLimit)\n",
		"		life := s.life\n		if %s {\n			life = ctx\n		}\n		ctx, cancel := context.WithTimeout(life, olderLimit)\n", 1},
	{"FATAL in another language than English is an answer", "../sqlstate/sqlstate.go",
		"	switch state {\n", "	if %s {\n		return false\n	}\n	switch state {\n", 1221},
}

// buildBugs builds a player with all bugs in it.
func buildBugs(t *testing.T) string {
	var all []change
	imported := make(map[string]bool)
	for i, b := range bugs {
		all = append(all, change{b.file, b.now, fmt.Sprintf(b.then, fmt.Sprintf("os.Getenv(%q) == \"%d\"", bugSwitch, i))})
		if !imported[b.file] {
			imported[b.file] = true
			name := b.file[:strings.LastIndex(b.file, "/")]
			name = name[strings.LastIndex(name, "/")+1:]
			all = append(all, change{b.file, "package " + name + "\n", "package " + name + "\n\nimport \"os\"\n"})
		}
	}
	with, err := build(t.TempDir(), all...)
	if err != nil {
		t.Fatal(err)
	}
	return with
}

// The simulation is held to account itself: bugs that there were once are found when they are put back.
func TestBugs(t *testing.T) {
	const most, some = 5000, 20
	with := buildBugs(t)
	for i, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			t.Setenv(bugSwitch, fmt.Sprint(i))
			for from := b.from; from < b.from+most; from += processes * some {
				var mu sync.Mutex
				var found []end
				var playing sync.WaitGroup
				for i := range uint64(processes) {
					playing.Go(func() {
						all := play(with, from+i*some, 1, some)
						mu.Lock()
						defer mu.Unlock()
						found = append(found, slices.DeleteFunc(all, func(e end) bool { return len(e.wrong) == 0 })...)
					})
				}
				playing.Wait()
				if len(found) > 0 {
					t.Logf("%d of %d seeds, the first %d: %.300s", len(found), processes*some, found[0].seed, found[0].wrong[0])
					return
				}
			}
			t.Errorf("not found in %d seeds", most)
		})
	}
}
