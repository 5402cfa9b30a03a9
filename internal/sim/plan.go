package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// plan is all that a seed decides beforehand: the servers, the pool, the load and the faults.
type plan struct { // More than 15 fields: one for each choice.
	seed     uint64
	servers  int
	names    string // how the DSN calls them, see below
	language string
	pq       bool     // lib/pq is the base driver
	options  []string // of the DSN
	size     int      // 0: database/sql governs
	clients  int
	commits  bool // the load is transactions that ask for their outcome, many of them in a hurry
	reads    bool // the load only reads: the pool may be on a standby
	stays    bool // connections to a standby stay, and writes fail on them, as under a bare driver
	standby  bool // standby_reads
	tls      bool
	late     int  // one part in so many of what is sent is late, as after a loss; 0: none
	brief    int  // one call in so many has a context that ends early; 0: none
	gentle   bool // only new connections meet faults, or only standbys, which the load doesn't need
	orders   bool // nothing but promotions happens, so that it is known which connections have to go on
	ends     bool // and some sessions are ended, so that new ones are wanted
	faults   []fault
}

// How the DSN calls the servers.
const (
	namesEach  = ""       // by a name each
	namesAll   = "all"    // by one name that has the addresses of all
	namesMoves = "moving" // by one name that has the address of the primary
)

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
	case "resize":
		return fmt.Sprintf("%v resize to %d", f.at, 1+f.which)
	case "promote":
		return fmt.Sprintf("%s, the old one %s for %v", s, f.how, f.lasts)
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
	harsh = []string{"cut up", "cut up", "cut down", "cut down", "terminate", "restart", "shut down", "freeze", "gone", "slow",
		"read-only", "disk", "late", "lost"}
	gently = []string{"refuse", "full", "mute", "closing"}
)

// What becomes of the old primary when another server is promoted.
const (
	dead        = "dies"
	frozen      = "freezes"
	unreachable = "can't be reached"
	alive       = "goes on" // as if nothing had happened
	demoted     = "has become a standby"
)

func newPlan(seed uint64) *plan {
	r := rand.New(rand.NewPCG(seed, 1))
	one := func(n int) bool { return r.IntN(n) == 0 }
	p := &plan{seed: seed, servers: 1, clients: 2 + r.IntN(5)}
	if !one(3) {
		p.servers = 2 + r.IntN(2)
	}
	if one(4) {
		p.language = "ru"
	}
	if p.tls = one(6); p.tls {
		p.options = append(p.options, "sslmode=require")
	} else {
		p.options = append(p.options, "sslmode=disable")
	}
	if p.tls && seed%2 == 0 {
		p.language = "ru" // that was a fault with TLS only
	}
	if one(3) {
		p.late = 10 + r.IntN(200)
	}
	if p.pq = one(3); p.pq {
		p.options = append(p.options, "base_driver=pq")
	}
	p.gentle = one(6)
	if !one(3) {
		p.size = 1 + r.IntN(6)
		p.options = append(p.options, fmt.Sprintf("pool_size=%d", p.size), fmt.Sprintf("max_overflow=%d", r.IntN(3)))
		if p.gentle {
			p.options[slices.IndexFunc(p.options, isOverflow)] = "max_overflow=0"
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
	switch {
	case !p.gentle && one(15):
		p.commits, p.brief = true, 2
		if p.servers > 1 {
			p.several(r)
		}
		kinds = []string{"freeze", "freeze", "freeze", "cut up", "cut down", "terminate"}
	case p.servers > 1 && !p.gentle && one(4):
		p.orders, p.brief = true, 0
		if p.size > 0 {
			p.options[slices.IndexFunc(p.options, isOverflow)] = "max_overflow=0"
		}
		p.several(r)
		kinds = []string{"promote"}
	case p.servers > 1:
		p.several(r)
		kinds = append(slices.Clone(harsh), gently...)
		if !p.gentle {
			kinds = append(kinds, "promote", "promote", "promote", "promote", "promote", "promote")
		}
	case !p.gentle:
		kinds = append(slices.Clone(harsh), gently...)
	default:
		if p.ends = one(2); p.ends {
			kinds = append(slices.Clone(gently), "terminate", "terminate")
		}
	}
	if p.size > 0 && !p.orders {
		kinds = append(slices.Clone(kinds), "pause")
		if !p.gentle {
			kinds = append(kinds, "resize")
		}
	}
	if !p.gentle && !p.orders {
		kinds = append(slices.Clone(kinds), "drain")
	}
	if !p.gentle && !p.orders && one(10) {
		kinds = append(slices.Clone(kinds), "close", "close")
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
	for i := range p.faults {
		f := &p.faults[i]
		switch {
		case f.kind == "freeze":
			f.lasts *= 2
		case f.kind == "promote":
			f.how = []string{dead, dead, frozen, unreachable, alive, alive, demoted}[r.IntN(7)]
		case p.gentle && p.servers > 1:
			f.server = 1 + f.server%(p.servers-1)
		}
	}
	if p.orders && !one(3) { // before the servers are known
		p.faults[0].at, p.late = time.Duration(r.Int64N(int64(30*time.Millisecond))), 2+r.IntN(4)
		if !one(3) { // and nothing else to follow
			p.faults = p.faults[:1]
			p.faults[0].how = []string{demoted, dead}[r.IntN(2)]
		}
	}
	slices.SortStableFunc(p.faults, func(a, b fault) int { return int(a.at - b.at) })
	return p
}

// allLate says that so much is late that no call may have the time it takes.
func (p *plan) allLate() bool { return p.late > 0 && p.late < 10 }

func isOverflow(option string) bool { return strings.HasPrefix(option, "max_overflow=") }

// several chooses what matters where there are several servers.
func (p *plan) several(r *rand.Rand) {
	one := func(n int) bool { return r.IntN(n) == 0 }
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	option := func(text string) { p.options = append(p.options, text) }
	if p.size > 0 && one(4) {
		p.standby = true
		option("standby_reads=true")
	}
	target := ""
	switch {
	case p.gentle, p.orders, p.commits:
	case one(4):
		p.names, target = namesAll, "read-write" // one name alone doesn't mean it
	case one(6):
		p.names, target = namesMoves, pick("", "read-write")
		p.stays = target == ""
	case one(6):
		target = "any"
	case one(6):
		p.reads, target = true, pick("standby", "prefer-standby", "any")
	case one(6):
		target = "primary"
	}
	if target != "" {
		option("target_session_attrs=" + target)
	}
	if p.reads && one(2) {
		option("load_balance_hosts=random")
	}
	if target == "any" {
		// A standby that takes over serves, until a probe finds the new primary and the pool goes back there.
		option("health_check_interval=100ms")
		return
	}
	if !one(3) {
		option("health_check_interval=" + pick("100ms", "1s"))
	}
	if one(3) {
		option("failback=false")
	} else if p.orders && !one(4) || one(2) {
		option("failback_after=1")
	}
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
