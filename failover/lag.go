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
	overAt  int64         // where it had to come to when it was first seen to be too far behind; 0: it wasn't
	aheadAt int64         // where the primary was, that it had not been seen to have reached; 0: nowhere
	ahead   time.Time     // when that was seen
}

// measure says from a probe how far the endpoint's replay is behind. Its lag is the age of what it has replayed last, while it has
// received more than that, or the time since the primary was seen where it hasn't come to yet; else it is none, so that a
// primary without writes leaves nobody behind. It needs the lock.
func (g *Group) measure(e *endpoint, o Observation, now time.Time) {
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
	}
	if r.Replayed >= e.lag.aheadAt {
		e.lag.aheadAt = 0
	} else {
		behind = max(behind, now.Sub(e.lag.ahead))
	}
	g.judge(e, behind)
}

// judge takes a lag in. An endpoint is too far behind once two probes in a row say so and the second finds that it still isn't where the
// first saw that it had to come: what has just arrived is not yet replayed on any standby, and may come long after what was
// replayed last. It is back when its lag is half of what is allowed. It needs the lock.
func (g *Group) judge(e *endpoint, behind time.Duration) {
	most := g.opts.MaxReplicationLag
	was := e.lagging
	switch over := most > 0 && behind > most; {
	case over && e.lag.overAt > e.Replay.Replayed:
		e.lag.is, e.lagging = behind, true
	case over:
		e.lag.overAt = max(e.Replay.Received, e.lag.aheadAt)
		e.again = true
	default:
		e.lag.is, e.lag.overAt = behind, 0
		e.lagging = e.lagging && behind > most/2
	}
	switch {
	case e.lagging && !was:
		g.log(slog.LevelWarn, "managedpg: standby is too far behind", "endpoint", e.name, "reason", g.whyLagging(e))
	case was && !e.lagging:
		g.log(slog.LevelInfo, "managedpg: standby has caught up", "endpoint", e.name)
	}
}

func (g *Group) whyLagging(e *endpoint) string {
	return fmt.Sprintf("its replay is %v behind, more than max_replication_lag (%v)", e.lag.is.Round(time.Millisecond), g.opts.MaxReplicationLag)
}

// lagBytes is how much WAL a standby still had to replay when it was last asked, by where its primary was seen last, or by what it has
// received if that is more. It needs the lock.
func (g *Group) lagBytes(e *endpoint) int64 {
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
