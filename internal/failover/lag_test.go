package failover_test

import (
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// at is a server at a place in the WAL.
func at(o failover.Observation, r failover.Replay) failover.Observation { o.Replay = r; return o }

func lagging(t *testing.T, target string, seen []failover.Observation, play func(*rig)) {
	t.Helper()
	scene(t, func(o *failover.Options) {
		o.TargetSessionAttrs, o.Random, o.MaxReplicationLag = target, true, 2*time.Second
	}, seen, play)
}

var abreast = []failover.Observation{
	at(writer(1), failover.Replay{Written: 100}),
	at(standby(1), failover.Replay{Received: 100, Replayed: 100, Age: time.Hour}),
	at(standby(1), failover.Replay{Received: 100, Replayed: 100, Age: time.Hour}),
}

func (r *rig) lag(i int) failover.EndpointHealth { return r.Health().Endpoints[i] }

// A standby whose replay stands while there is more to replay is left, with a probe or two, and comes back when it has caught up.
func TestAStandbyTooFarBehindIsLeft(t *testing.T) {
	lagging(t, "prefer-standby", abreast, func(r *rig) {
		want(t, "even", r.open(8), "[0 4 4]")
		r.heard()
		r.pass(time.Minute)
		want(t, "idle primary", r.heard(), "")
		want(t, "its standbys' lag", r.lag(1).ReplicationLag, 0)

		r.servers[1].back(at(standby(1), failover.Replay{Received: 200, Replayed: 150, Age: 3 * time.Second}))
		r.pass(7 * time.Second)
		want(t, "too far behind", r.heard(), "drain 1")
		h := r.lag(1)
		if !h.Lagging || h.ReplicationLag != 3*time.Second || h.ReplicationLagBytes != 50 || h.State != failover.Up {
			t.Errorf("health is %+v", h)
		}
		if !strings.Contains(r.log(), "its replay is 3s behind, more than max_replication_lag (2s)") {
			t.Errorf("log: %s", r.log())
		}
		r.closes(1, 4)
		want(t, "new ones", r.open(4), "[0 0 8]")

		r.servers[1].back(at(standby(1), failover.Replay{Received: 300, Replayed: 250, Age: 1500 * time.Millisecond}))
		r.pass(7 * time.Second)
		want(t, "not enough", r.lag(1).Lagging, true)
		r.servers[1].back(at(standby(1), failover.Replay{Received: 300, Replayed: 300, Age: 1500 * time.Millisecond}))
		r.pass(7 * time.Second)
		want(t, "back", r.lag(1).Lagging, false)
		want(t, "gets its share", r.open(8), "[0 8 8]")
	})
}

// Whenever it is that a standby's replay stops, while the primary writes on, the standby is left once that was max_replication_lag ago and
// it was probed again, and no earlier.
func TestAPausedReplayIsFoundInTime(t *testing.T) {
	const most, interval = 2 * time.Second, 5 * time.Second // as lagging and scene have it
	for phase := time.Duration(0); phase < interval; phase += 430 * time.Millisecond {
		lagging(t, "prefer-standby", abreast, func(r *rig) {
			r.open(8)
			r.pass(time.Minute + phase)
			r.heard()
			paused := time.Now()
			for written := int64(200); !r.lag(1).Lagging; written++ {
				since := time.Since(paused)
				if since > most+interval+50*time.Millisecond { // the second of two probes comes that much later
					t.Fatalf("paused %v after a probe began: not left after %v", phase, since)
				}
				r.servers[1].back(at(standby(1), failover.Replay{Received: written, Replayed: 150, Age: since}))
				r.pass(10 * time.Millisecond)
			}
			if since := time.Since(paused); since < most {
				t.Errorf("left after %v already", since)
			}
			want(t, "said", r.heard(), "drain 1")
		})
	}
}

// After a pause of the primary's a standby takes a second for what then comes, and has replayed nothing for an hour: that is no lag of an hour.
func TestAPauseOfThePrimaryIsNoLag(t *testing.T) {
	for phase := time.Duration(0); phase < 5*time.Second; phase += 700 * time.Millisecond {
		lagging(t, "prefer-standby", abreast, func(r *rig) {
			r.open(8)
			r.pass(10*time.Minute + phase)
			r.heard()
			for i := int64(0); i < 1000; i++ { // it is a second behind, in a load of 10 s
				r.servers[1].back(at(standby(1), failover.Replay{Received: 200 + i, Replayed: 100 + i, Age: time.Hour}))
				r.pass(10 * time.Millisecond)
			}
			if h := r.lag(1); h.Lagging || h.ReplicationLag > 2*time.Second {
				t.Errorf("after %v: lagging %v, %v behind", phase, h.Lagging, h.ReplicationLag)
			}
			want(t, "said", r.heard(), "")
		})
	}
}

// What has just arrived may come long after what was replayed last: on an idle primary's standby that is no lag.
func TestWhatHasJustArrivedIsNoLag(t *testing.T) {
	lagging(t, "standby", abreast, func(r *rig) {
		r.open(8)
		r.heard()
		for n := int64(100); n < 200_000; n += 100 { // each probe comes in the moment between
			r.servers[1].back(at(standby(1), failover.Replay{Received: n + 100, Replayed: n, Age: time.Hour}))
			r.pass(10 * time.Millisecond)
		}
		want(t, "said", r.heard(), "")
		want(t, "lagging", r.lag(1).Lagging, false)
	})
}

// A standby that is cut off from its primary has replayed all that it has received.
func TestACutOffStandbyIsBehind(t *testing.T) {
	lagging(t, "standby", abreast, func(r *rig) {
		r.open(8)
		r.heard()
		r.servers[0].back(at(writer(1), failover.Replay{Written: 500}))
		r.servers[2].back(at(standby(1), failover.Replay{Received: 500, Replayed: 500}))
		r.pass(20 * time.Second)
		want(t, "said", r.heard(), "drain 1")
		if h := r.lag(1); !h.Lagging || h.ReplicationLagBytes != 400 {
			t.Errorf("health is %+v", h)
		}
		want(t, "the other", r.lag(2).Lagging, false)
	})
}

func TestWithoutAnyOtherALaggingStandbyServes(t *testing.T) {
	behind := failover.Replay{Received: 200, Replayed: 100, Age: time.Hour}
	for target, to := range map[string]int{"standby": 1, "read-only": 1, "prefer-standby": 0, "any": 0} {
		lagging(t, target, []failover.Observation{at(writer(1), failover.Replay{Written: 200}), at(standby(1), behind)}, func(r *rig) {
			r.open(1)
			r.pass(3 * time.Second)
			want(t, target+": lagging", r.lag(1).Lagging, true)
			r.reaches(to)
		})
	}
}

// A server that lacks the functions is never excluded, and its health says so.
func TestWithoutTheFunctionsThereIsNoLag(t *testing.T) {
	lagging(t, "standby", []failover.Observation{writer(1), standby(1), standby(1)}, func(r *rig) {
		want(t, "even", r.open(8), "[0 4 4]")
		r.pass(20 * time.Second)
		if h := r.lag(1); h.Lagging || h.ReplicationLag >= 0 || !strings.Contains(h.Note, "replay lag unknown: taken as none") {
			t.Errorf("health is %+v", h)
		}
	})
}

// Without load balancing too the one in use is left.
func TestTheCurrentIsLeftWhenItLags(t *testing.T) {
	scene(t, func(o *failover.Options) { o.TargetSessionAttrs, o.MaxReplicationLag = "standby", 2*time.Second }, abreast, func(r *rig) {
		r.reaches(1)
		r.pass(time.Second)
		r.servers[1].back(at(standby(1), failover.Replay{Received: 200, Replayed: 150, Age: 3 * time.Second}))
		r.pass(6 * time.Second)
		r.reaches(2)
	})
}
