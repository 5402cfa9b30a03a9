package failover

import (
	"fmt"
	"log/slog"
	"time"
)

// Replay is how far a server is in the WAL, in bytes since its beginning. What can't be read is zero.
type Replay struct {
	// Written is where a primary writes.
	Written int64
	// Received and Replayed are where a standby is. Received is zero for one that streams from nobody.
	Received, Replayed int64
	// Age is how long ago, by the standby's clock, the last transaction was committed that it has replayed.
	Age time.Duration
}

// lagUnknown stands in Health for a lag that can't be read.
const lagUnknown = -time.Second

// lag is what is known of how far an endpoint's replay is behind.
type lag struct {
	is      time.Duration // lagUnknown: it can't be read
	dueAt   int64         // where it had to come to when it was first seen not to be there; 0: nothing is missing
	due     time.Time     // when that was seen
	maybe   bool          // it may be too far behind
	aheadAt int64         // where the primary was, that it had not been seen to have reached; 0: nowhere
	ahead   time.Time     // when that was seen
	even    time.Time     // when it was last seen to have replayed all that it had received
}

// measureLocked says from a probe how far the endpoint's replay is behind. Its lag is the age of what it has replayed last, while it has
// received more than that, or the time since the primary was seen where it hasn't come to yet; else it is none, so that a
// primary without writes leaves nobody behind. That age may be the length of a pause of the primary's, so it is no more than the time
// since nothing was missing.
func (g *Group) measureLocked(e *endpoint, o Observation, now time.Time) {
	r := o.Replay
	if o.Recovery == NotInRecovery && r.Written > 0 {
		e.lag, e.lagging = lag{}, false
		for _, s := range g.endpoints {
			if s != e && s.lag.aheadAt == 0 && s.SystemID == e.SystemID && s.Recovery == InRecovery {
				s.lag.aheadAt, s.lag.ahead = r.Written, now
			}
		}
		return
	}
	if o.Recovery != InRecovery || r.Replayed == 0 {
		e.lag, e.lagging = lag{is: lagUnknown}, false
		return
	}
	var behind time.Duration
	if r.Received > r.Replayed {
		behind = max(0, r.Age)
		if !e.lag.even.IsZero() {
			behind = min(behind, now.Sub(e.lag.even))
		}
	} else {
		e.lag.even = now
	}
	missing := time.Duration(0) // for so long at least
	if r.Replayed >= e.lag.aheadAt {
		e.lag.aheadAt = 0
	} else {
		missing = now.Sub(e.lag.ahead)
	}
	g.judgeLocked(e, max(behind, missing), missing > g.opts.MaxReplicationLag, now)
}

// judgeLocked takes a lag in. An endpoint is too far behind once it isn't, for as long as is allowed, where it was first seen that it had to
// come: what has just arrived is not yet replayed on any standby, and may come long after what was replayed last. Where it is
// certain that it was missing for so long two probes in a row do. It is back when its lag is half of what is allowed.
func (g *Group) judgeLocked(e *endpoint, behind time.Duration, certain bool, now time.Time) {
	most := g.opts.MaxReplicationLag
	was := e.lagging
	stays := e.lag.dueAt > e.Replay.Replayed
	if !stays {
		e.lag.dueAt, e.lag.due = max(e.Replay.Received, e.lag.aheadAt), now
	}
	if e.lag.dueAt <= e.Replay.Replayed {
		e.lag.dueAt = 0
	}
	e.lag.maybe = most > 0 && behind > most
	switch {
	case e.lag.maybe && stays:
		if e.lagging = was || certain || now.Sub(e.lag.due) >= most; e.lagging {
			e.lag.is = behind
		}
	case e.lag.maybe:
		e.again = e.again || certain
	default:
		e.lag.is = behind
		e.lagging = e.lagging && behind > most/2
	}
	switch {
	case e.lagging && !was:
		g.logLocked(slog.LevelWarn, "managedpg: standby is too far behind", "endpoint", e.name, "reason", g.whyLaggingLocked(e))
	case was && !e.lagging:
		g.logLocked(slog.LevelInfo, "managedpg: standby has caught up", "endpoint", e.name)
	}
}

// lagAtLocked is when a probe can be certain of what the last one could not; zero: it is, or can't be.
func (g *Group) lagAtLocked(e *endpoint, now time.Time) time.Time {
	if e.lag.dueAt == 0 || e.lagging || !e.lag.maybe && !e.lag.due.Before(now) {
		return time.Time{}
	}
	return e.lag.due.Add(g.opts.MaxReplicationLag)
}

func (g *Group) whyLaggingLocked(e *endpoint) string {
	return fmt.Sprintf("its replay is %v behind, more than max_replication_lag (%v)", e.lag.is.Round(time.Millisecond), g.opts.MaxReplicationLag)
}

// lagBytesLocked is how much WAL a standby still had to replay when it was last asked, by where its primary was seen last, or by what it has
// received if that is more.
func (g *Group) lagBytesLocked(e *endpoint) int64 {
	if e.Recovery != InRecovery || e.Replay.Replayed == 0 {
		return 0
	}
	newest := e.Replay.Received
	for _, p := range g.endpoints {
		if p.SystemID == e.SystemID && p.Recovery == NotInRecovery && !p.fenced {
			newest = max(newest, p.Replay.Written)
		}
	}
	return max(0, newest-e.Replay.Replayed)
}
