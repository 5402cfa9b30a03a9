package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// plan is all that a seed decides beforehand: the servers, the pool, the load and the faults.
type plan struct {
	seed     uint64
	servers  int
	language string
	options  []string // of the DSN
	size     int      // 0: database/sql governs
	clients  int
	brief    int  // one call in so many has a context that ends early; 0: none
	gentle   bool // only new connections meet faults
	ends     bool // and some sessions are ended, so that new ones are wanted
	faults   []fault
}

// fault is one, and when.
type fault struct {
	at, lasts time.Duration
	kind      string
	server    int
	which     int // of the connections
	bytes     int
	how       string
}

func (f fault) String() string {
	s := fmt.Sprintf("%v %s db%d", f.at, f.kind, f.server+1)
	switch f.kind {
	case "cut up", "cut down":
		return fmt.Sprintf("%s: connection %d %s after %d bytes", s, f.which, f.how, f.bytes)
	case "terminate":
		return fmt.Sprintf("%s: session %d", s, f.which)
	}
	return fmt.Sprintf("%s for %v", s, f.lasts)
}

// The time of faults, and what follows.
const (
	faultsFor = 3 * time.Second
	settles   = time.Second // how soon all must be well after the last fault
	goodFor   = 500 * time.Millisecond
)

var (
	harsh  = []string{"cut up", "cut up", "cut down", "cut down", "terminate", "restart", "shut down", "freeze", "gone", "slow"}
	gently = []string{"refuse", "full", "mute", "closing"}
)

func newPlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, 1))
	one := func(n int) bool { return r.IntN(n) == 0 }
	p := &plan{seed: seed, servers: 1, clients: 2 + r.IntN(5)}
	if one(6) {
		p.language = "ru"
	}
	p.gentle = one(6)
	if !one(3) {
		p.size = 1 + r.IntN(6)
		p.options = append(p.options, fmt.Sprintf("pool_size=%d", p.size), fmt.Sprintf("max_overflow=%d", r.IntN(3)))
		if p.gentle {
			p.options[1] = "max_overflow=0"
		}
		if one(6) && !p.gentle {
			p.options = append(p.options, "pool_reset=discard_all")
		}
	}
	if one(5) {
		p.options = append(p.options, "cancel_timeout=0")
	}
	if !p.gentle && !one(3) {
		p.brief = 2 + r.IntN(20)
	}
	kinds := gently
	if !p.gentle {
		kinds = append(slices.Clone(harsh), gently...)
	} else if p.ends = one(2); p.ends {
		kinds = append(slices.Clone(gently), "terminate", "terminate")
	}
	for range 1 + r.IntN(8) {
		longest := []time.Duration{20, 200, 1000}[r.IntN(3)] * time.Millisecond
		p.faults = append(p.faults, fault{
			at:     time.Duration(r.Int64N(int64(faultsFor))).Round(time.Millisecond),
			lasts:  time.Duration(r.Int64N(int64(longest))).Round(time.Millisecond),
			kind:   kinds[r.IntN(len(kinds))],
			server: r.IntN(p.servers),
			which:  r.IntN(8),
			bytes:  r.IntN([]int{8, 120, 600}[r.IntN(3)]),
			how:    []string{"reset", "half-closed", "lost"}[r.IntN(3)],
		})
	}
	slices.SortStableFunc(p.faults, func(a, b fault) int { return int(a.at - b.at) })
	return p
}

// drop leaves some of the faults out.
func (p *plan) drop(some []int) {
	var left []fault
	for i, f := range p.faults {
		if !slices.Contains(some, i) {
			left = append(left, f)
		}
	}
	p.faults = left
}
