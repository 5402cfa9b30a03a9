package web

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/managedpg/managedpg/leak"
)

// People are who uses a pool.
type People struct {
	Users           []userView
	Waiting         []waitingView
	Holders         []holderView
	Leaked          int   // connections held for too long now
	TimedOut        bool  // calls of one of the users have run out of time
	More            int64 // holders that aren't listed
	NoLeakDetection bool
}

// userView is a line of code and its part of the pool's time.
type userView struct {
	leak.Usage
	Short, Percent, Share          string
	HeldFor, WaitedFor, LongestFor string
	Labelled                       string
}

type waitingView struct {
	leak.Waiting
	Short, LongestFor string
}

// holderView is a stack and all who hold a connection by it.
type holderView struct {
	ID       string
	Caller   string // short
	Full     string
	Stack    []string
	Reports  []reportView
	Longest  string
	Leaked   int
	Labelled bool
	longest  time.Duration
}

type reportView struct {
	leak.Report
	Held   string
	Labels string
	Leaked bool
}

const (
	mostUsers  = 10 // lines of code that are listed
	mostLabels = 4  // of one line
)

func (v *People) fill(in *situation) {
	for _, u := range in.usage[:min(len(in.usage), mostUsers)] {
		one := userView{Usage: u, Short: shortCaller(u.Caller), Percent: fmt.Sprintf("%.0f %%", 100*u.Share), Share: number(100 * u.Share),
			HeldFor: short(u.Held), WaitedFor: short(u.Waited), LongestFor: short(u.Longest)}
		var tags []string
		for _, l := range u.Labels[:min(len(u.Labels), mostLabels)] {
			tags = append(tags, fmt.Sprintf("%s=%s %.0f %%", l.Key, l.Value, 100*l.Share))
		}
		one.Labelled = strings.Join(tags, ", ")
		v.TimedOut = v.TimedOut || u.TimedOut > 0
		v.Users = append(v.Users, one)
	}
	for _, w := range in.waiting[:min(len(in.waiting), mostUsers)] {
		v.Waiting = append(v.Waiting, waitingView{w, shortCaller(w.Caller), short(w.Longest)})
	}
	v.holders(in)
}

func (v *People) holders(in *situation) {
	leaked := map[uint64]bool{}
	for _, r := range in.leaks {
		leaked[r.ConnectionID] = true
	}
	groups := map[string]*holderView{}
	for _, r := range in.holders {
		key := strings.Join(r.Stack, "\n")
		g := groups[key]
		if g == nil {
			g = &holderView{ID: id("h", in.stats.Name, key), Caller: shortCaller(r.Caller), Full: r.Caller, Stack: r.Stack}
			groups[key] = g
		}
		g.Reports = append(g.Reports, reportView{r, short(r.Duration), labels(r.Labels), leaked[r.ConnectionID]})
		g.Labelled = g.Labelled || len(r.Labels) > 0
		g.longest = max(g.longest, r.Duration)
		g.Longest = short(g.longest)
		if leaked[r.ConnectionID] {
			g.Leaked++
		}
	}
	for _, g := range slices.SortedFunc(maps.Values(groups), func(a, b *holderView) int {
		return cmp.Or(cmp.Compare(b.longest, a.longest), cmp.Compare(a.ID, b.ID))
	}) {
		v.Holders = append(v.Holders, *g)
	}
	v.More = max(0, in.stats.CheckedOut-int64(len(in.holders)))
}
