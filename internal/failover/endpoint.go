package failover

import (
	"time"

	"github.com/managedpg/managedpg/internal/evidence"
)

// endpoint is what is known of a member.
type endpoint struct {
	number  int
	host    *host
	watched bool // the monitor probes it
	signals
	gate gate

	// What follows is guarded by Group.mu.
	candidate
	place
	standing
	probes
	healthRecord
	coming int // checkouts that are on their way to it
}

// signals are what an endpoint shows without the lock.
type signals struct {
	evidence.Signals
	probing chan struct{} // holds one while a probe is under way
	poked   chan struct{} // tells the monitor that due has changed
	left    chan struct{} // closed when it is forgotten
}

// place is where an endpoint is.
type place struct {
	name     string    // the host's, and the address if it is one of several
	address  string    // that is dialled in place of the host's name; empty: none is known
	gone     bool      // its address isn't the name's any more; it is barred then
	missed   int       // answers in a row without its address
	missedAt time.Time // when the first of those came
}

// standing is what settleLocked has made of an endpoint.
type standing struct {
	admitted bool     // its role will do
	reviewed Recovery // its Recovery when settleLocked last looked
	was      bool     // usable when settleLocked last looked
	shown    State    // its state when settleLocked last looked
	seen     bool     // its Observation is one
	lent     bool     // connections to it may exist
	fresh    bool     // connections of its present epoch may exist
	shares   bool     // connections are to be spread over it
	moves    bool     // see Route
	mixed    bool     // its address leads to standbys and to a primary in turn, as far as is known
	replayed int64    // the timeline of the standby that was seen before the primary
	verdicts int      // how often it was found down
	revived  int      // how often it became usable, or was cleared of suspicion
	lastErr  error    // the last failed dial or probe; nil while it is up
}

// doubt is why a probe's answer isn't believed.
type doubt int

const (
	doubtAlive doubt = 1 << iota // a dial has found nobody there since the probe began, or something has made it suspect
	doubtRole                    // another role was seen since
)

// probes are an endpoint's, and when the next is due.
type probes struct {
	due         time.Time // when the monitor probes it next
	began       time.Time // when the last probe began
	seenAt      time.Time // when an observation was taken in last
	badAt       time.Time // when a dial found it down last, or something made it suspect
	doubted     doubt     // of the last probes, which succeeded, and may have been answered before one of these
	begun       int       // probes
	underWay    *probing  // nil: none is
	afreshAt    time.Time // when the address was asked last for a role that will do
	again       bool      // evidence came while a probe was under way
	calm        int       // probes in a row that were asked for by evidence and found nothing
	fails       int       // failed probes in a row
	unanswered  int       // probes in a row that got no answer
	silentSince time.Time // when the last but one of those began
	silentLast  time.Time // and the last one
	stuckAt     int       // how many they were when Stuck was last called
}

// healthRecord is what was seen of an endpoint, for Health.
type healthRecord struct {
	checks, resetChecks checks // ever, and at the last ResetCounts
	lag                 lag
	response            time.Duration
	lastCheck           time.Time
	history             []Check
}
