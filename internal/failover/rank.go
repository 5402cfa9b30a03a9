package failover

import (
	"fmt"
	"slices"
)

// Recovery tells a standby from a primary, which a role alone doesn't: a primary can be read-only by default.
type Recovery int8

const (
	// RecoveryUnknown: it can't be read. A role read-write then counts as a primary's, read-only as a standby's.
	RecoveryUnknown Recovery = iota
	// InRecovery: a standby.
	InRecovery
	// NotInRecovery: a primary.
	NotInRecovery
)

// Observation is what a probe or a dial learnt. What can't be read is left zero; nothing is ruled out for it.
type Observation struct {
	// Role is what a session's transactions may do by default.
	Role Role
	// Recovery is what pg_is_in_recovery() says.
	Recovery Recovery
	// Timeline is the WAL timeline. On a server not in recovery it is the one being written, not the last checkpoint's.
	Timeline int64
	// SystemID is the cluster's system identifier.
	SystemID string
	// Replay is how far it is in the WAL; only a probe asks.
	Replay Replay
	// Note says what this server can't tell and what that costs; shown in Health.
	Note string
}

// standby and primary are each false where nothing can be read.
func (o Observation) standby() bool {
	return o.Recovery == InRecovery || o.Recovery == RecoveryUnknown && o.Role == ReadOnly
}

func (o Observation) primary() bool {
	return o.Recovery == NotInRecovery || o.Recovery == RecoveryUnknown && o.Role == ReadWrite
}

// over is what is known once o was learnt: a dial may have asked for less than a probe, and what it didn't ask for stays.
// A timeline doesn't outlive a change of role: a promotion begins a new one.
func (o Observation) over(before Observation) Observation {
	if o.Role == "" || o.Role == RoleUnknown && o.Recovery == RecoveryUnknown {
		o.Role, o.Recovery = before.Role, before.Recovery
	}
	if o.Replay == (Replay{}) && o.Recovery == before.Recovery {
		o.Replay = before.Replay
	}
	if o.Note == "" {
		o.Note = before.Note
	}
	return o.identifiedBy(before)
}

// identifiedBy is o with the identity that the server told before, if it doesn't tell it any more.
func (o Observation) identifiedBy(before Observation) Observation {
	if o.SystemID == "" && o.Timeline == 0 && o.writes() == before.writes() {
		o.SystemID, o.Timeline = before.SystemID, before.Timeline
	}
	return o
}

// writes says that it is a server on which something can be written: the kind that is fenced.
func (o Observation) writes() bool { return o.Role == ReadWrite || o.Recovery == NotInRecovery }

// known says that fencing can go by it.
func (o Observation) known() bool {
	return o.SystemID != "" && o.Timeline > 0 && (o.Recovery != RecoveryUnknown || o.Role == ReadWrite || o.Role == ReadOnly)
}

// target is target_session_attrs, with libpq's meanings ("libpq: Connection Strings", target_session_attrs).
type target string

const (
	targetAny           target = "any"
	targetReadWrite     target = "read-write"
	targetReadOnly      target = "read-only"
	targetPrimary       target = "primary"
	targetStandby       target = "standby"
	targetPreferStandby target = "prefer-standby"
)

// admits says that a session on such a server will do. A server whose role can't be read will.
func (t target) admits(o Observation) bool {
	switch t {
	case targetReadWrite:
		return o.Role != ReadOnly && o.Recovery != InRecovery
	case targetReadOnly:
		return o.Role != ReadWrite
	case targetPrimary:
		return !o.standby()
	case targetStandby:
		return !o.primary()
	default:
		return true
	}
}

// wantsWriter says that no standby will do.
func (t target) wantsWriter() bool { return t == targetReadWrite || t == targetPrimary }

// firstTimeline is that of a system in which no standby was ever promoted, nor a backup recovered.
const firstTimeline = 1

// fence remembers the highest timeline of each system, for as long as the group lives.
type fence struct {
	on      bool
	highest map[string]newest
}

// newest is where a system's highest timeline was seen first.
type newest struct {
	timeline int64
	endpoint string
}

// see remembers an observation. A standby's timeline counts too: it follows a server that has written it.
func (f *fence) see(endpoint string, o Observation) {
	if f.on && o.known() && o.Timeline > f.highest[o.SystemID].timeline {
		f.highest[o.SystemID] = newest{o.Timeline, endpoint}
	}
}

// forget unlearns all timelines.
func (f *fence) forget() { clear(f.highest) }

// promoted says that a standby was: there may be an old primary somewhere.
func (f *fence) promoted() bool {
	for _, n := range f.highest {
		if n.timeline > firstTimeline {
			return true
		}
	}
	return false
}

// shuts says that such a server must not be written to.
func (f *fence) shuts(o Observation) bool {
	return f.on && o.known() && o.writes() && o.Timeline < f.highest[o.SystemID].timeline
}

// candidate is all that the choice of an endpoint goes by.
type candidate struct {
	Observation
	state  State
	silent bool // Suspect, and found slow to answer since
	full   bool // the last who wanted in were told that there is no room
	// lagging: its replay is farther behind than max_replication_lag.
	lagging bool
	fenced  bool
	barred  bool // failover=false, and not the first
	of      int  // the name whose address it is; 0: none
	good    int  // good probes in a row
}

// preference ranks what is admitted before the configured order does; less is better. One that nobody has asked yet may be a standby.
func (c candidate) preference(t target) int {
	switch {
	case c.lagging && (t == targetPreferStandby || t == targetAny):
		return 2
	case t == targetPreferStandby && !c.standby() && !c.unseen():
		return 1
	case t == targetAny && (c.Role == ReadOnly || c.Recovery == InRecovery):
		return 1
	case c.lagging:
		return 1
	default:
		return 0
	}
}

// unseen: nothing is known of its role, because nobody has asked.
func (c candidate) unseen() bool {
	return c.state == Unknown && c.Recovery == RecoveryUnknown && (c.Role == "" || c.Role == RoleUnknown)
}

// usable says that new connections may go there. Unknown and Suspect will do: nothing certain speaks against them.
func (c candidate) usable(t target) bool {
	return (c.state == Up || c.state == Suspect || c.state == Unknown) && !c.fenced && !c.barred && t.admits(c.Observation)
}

// order ranks the usable endpoints, the best first: what has room before what is full, then the target's preference, then what
// answers before what is silent, then the configured order. So none stands in for a silent one that is less fit than it is.
func order(t target, cs []candidate) []int {
	var usable []int
	for i, c := range cs {
		if c.usable(t) {
			usable = append(usable, i)
		}
	}
	slices.SortStableFunc(usable, func(a, b int) int { return cs[a].weight(t) - cs[b].weight(t) })
	return usable
}

// weight ranks the usable ones; less is better.
func (c candidate) weight(t target) int {
	w := 2 * c.preference(t)
	if c.silent {
		w++
	}
	if c.full {
		w += 8
	}
	return w
}

// sameWriter says that two endpoints are written to on one timeline of one system: two writers, or two names for one.
func sameWriter(a, b candidate) bool {
	return a.known() && b.known() && a.writes() && b.writes() && a.SystemID == b.SystemID && a.Timeline == b.Timeline
}

// asGoodAs says that c, in use, is another address of the name that b is one of, and no less fit. Resolvers change the order
// of a name's addresses, and mean nothing by it.
func (c candidate) asGoodAs(b candidate, t target) bool {
	return c.of != 0 && c.of == b.of && c.usable(t) && !c.silent && c.preference(t) == b.preference(t)
}

// rules are what the choice depends on besides the endpoints.
type rules struct {
	target        target
	failback      bool
	random        bool // load_balance_hosts=random
	failbackAfter int
}

// choose says which endpoint to use, given the one used now, and why. It answers -1 when none is usable.
//
//   - The current one stays for as long as it is usable and nothing better qualifies; one that is full only while all are of which
//     anything is known, and one that is too far behind only while nobody is fitter.
//   - Otherwise the best-ranked takes over at once.
//   - A better one qualifies by failbackAfter good probes in a row, or at once when it can be written to and the current
//     one can't. It doesn't qualify as a second writer on the current one's timeline: moving there could split the data.
//   - Where connections are spread (see shares) the current one is any of those that get some.
func (r rules) choose(cs []candidate, current int) (next int, why string) {
	ranked := order(r.target, cs)
	if len(ranked) == 0 {
		return -1, ""
	}
	if r.balances() && cs[current].usable(r.target) {
		if shares := r.shares(cs, current); !slices.Contains(shares, current) {
			return shares[0], "it is fitter than the one used before"
		}
		return current, ""
	}
	best := cs[ranked[0]]
	if at := cs[current]; !at.usable(r.target) || at.full && !best.full && !best.unseen() || at.lagging && best.preference(r.target) < at.preference(r.target) {
		return ranked[0], ""
	}
	if !r.failback {
		return current, ""
	}
	at := cs[current]
	for _, i := range ranked {
		c := cs[i]
		switch prefers := c.preference(r.target) - at.preference(r.target); {
		case i == current, prefers > 0, prefers == 0 && i > current:
			return current, "" // ranked: nothing after this one is better
		case c.state != Up, c.full, sameWriter(c, at), at.asGoodAs(c, r.target):
			continue
		case r.target == targetAny && prefers < 0 && c.Role == ReadWrite:
			return i, "it can be written to, the current one can't"
		case c.good >= r.failbackAfter:
			return i, fmt.Sprintf("healthy again (%d good probes in a row)", c.good)
		}
	}
	return current, ""
}
