package failover_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

func TestSuspectIsProbedAtOnceByOneProbe(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 50 * time.Millisecond })
		before, _ := r.servers[0].counts()
		r.pass(time.Second)
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() { r.CallFailed(0, errRefused) })
		}
		calls.Wait()
		r.stateIs(0, failover.Suspect)
		r.pass(40 * time.Millisecond)
		after, _ := r.servers[0].counts()
		want(r.t, "probes", after-before, 1)
		r.currentIs(0) // it is still used
		r.pass(time.Second)
		r.stateIs(0, failover.Up)
		want(r.t, "said", r.heard(), "")
		want(r.t, "events", r.kinds(), "")
	})
}

// Evidence that comes while a probe is under way, which may have passed before things went wrong, is followed by another.
func TestEvidenceDuringAProbe(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 50 * time.Millisecond })
		go r.CheckNow(context.Background())
		r.pass(10 * time.Millisecond)
		r.servers[0].die()
		r.servers[0].set(func(s *server) { s.latency = 0 })
		r.CallFailed(0, errRefused)
		r.pass(100 * time.Millisecond)
		r.stateIs(0, failover.Down)
	})
}

// What was asked before an endpoint became suspect, and is answered after, says nothing of it: not that it is well, nor that it is full.
func TestAnswersFromBeforeASuspicion(t *testing.T) {
	for name, answer := range map[string]error{"well": nil, "full": sqlState("53300")} {
		for asker, ask := range map[string]func(*rig){
			"dial":  func(r *rig) { _, _ = r.connect(context.Background()) },
			"probe": func(r *rig) { r.CheckNow(context.Background()) },
		} {
			t.Run(name+" by a "+asker, func(t *testing.T) {
				scene(t, nil, two, func(r *rig) {
					r.warmUp(0)
					r.servers[0].set(func(s *server) { s.latency, s.err = 50*time.Millisecond, answer })
					go ask(r)
					r.pass(10 * time.Millisecond)
					r.servers[0].set(func(s *server) { s.err = nil })
					r.CallFailed(0, errRefused)
					r.pass(45 * time.Millisecond)
					r.stateIs(0, failover.Suspect)
					r.currentIs(0)
					r.pass(time.Second)
					r.stateIs(0, failover.Up)
				})
			})
		}
	}
}

// A probe that finds a server back isn't doubted for sessions from before that are found lost meanwhile.
func TestOldSessionsLostWhileItComesBack(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.CallFailed(0, errRefused)
		r.pass(time.Second)
		r.stateIs(0, failover.Down)
		r.servers[0].back(two[0])
		r.servers[0].set(func(s *server) { s.latency = 50 * time.Millisecond })
		go r.CheckNow(context.Background())
		r.pass(10 * time.Millisecond)
		r.CallFailed(0, errRefused)
		r.pass(45 * time.Millisecond)
		r.stateIs(0, failover.Up)
	})
}

func TestSuspectWhoseProbeFailsIsDown(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].die()
		r.CallFailed(0, errors.New("conn closed"))
		r.pass(30 * time.Millisecond)
		r.stateIs(0, failover.Down)
		r.currentIs(1)
		want(r.t, "said", r.heard(), "drain 0")
	})
}

// One terminated session is no dead server, but two in a row are as good as one.
func TestTerminatedSessions(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.CallFailed(0, sqlState("57P01"))
		r.stateIs(0, failover.Suspect)
		r.pass(100 * time.Millisecond)
		r.stateIs(0, failover.Up)

		r.servers[0].set(func(s *server) { s.err = sqlState("57P01") })
		r.CheckNow(context.Background())
		r.stateIs(0, failover.Suspect)
		r.pass(150 * time.Millisecond)
		r.stateIs(0, failover.Down)
	})
}

// Slow statements run into their deadlines; that alone must never take a server down.
func TestCallersDeadlineNeverTakesItDown(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		for range 100 {
			r.CallFailed(0, context.DeadlineExceeded)
			r.pass(3 * time.Millisecond)
			r.reaches(0)
		}
		want(r.t, "failed checks", r.Health().FailedChecks, 0)
		want(r.t, "events", r.kinds(), "")
		want(r.t, "said", r.heard(), "")
	})
}

func TestCallersDeadlineDuringADial(t *testing.T) {
	scene(t, nil, two[:1], func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 100 * time.Millisecond })
		ctx, cancel := r.within(50 * time.Millisecond)
		defer cancel()
		_, err := r.connect(ctx)
		want(r.t, "deadline", errors.Is(err, context.DeadlineExceeded), true)
		want(r.t, "no endpoint", errors.Is(err, failover.ErrNoEndpoint), false)
		r.stateIs(0, failover.Suspect)
		r.pass(150 * time.Millisecond)
		r.stateIs(0, failover.Up)
	})
}

func TestCallersCancelIsNoEvidence(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 100 * time.Millisecond })
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		_, err := r.connect(ctx)
		want(r.t, "cancelled", errors.Is(err, context.Canceled), true)
		want(r.t, "no endpoint", errors.Is(err, failover.ErrNoEndpoint), false)
		r.CallFailed(0, context.Canceled)
		want(r.t, "state", r.Health().Endpoints[0].State, failover.Up)
	})
}

// A server froze and a call ran into its deadline. Until the probe has found that out, checkouts that get no answer
// shortly go to the other server: none of them waits for the probe's limit.
func TestSuspectThatIsSilentCostsLittle(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].freeze()
		r.CallFailed(0, context.DeadlineExceeded)
		want(r.t, "the first takes", took(func() { r.reaches(1) }), 10*time.Millisecond)
		want(r.t, "the next takes", took(func() { r.reaches(1) }), 0)
		r.currentIs(0)
		r.pass(1100 * time.Millisecond) // probed 25 ms after the last one
		r.currentIs(1)
		r.pass(time.Minute)
		want(r.t, "events", r.kinds(), "failover db0->db1")
		want(r.t, "1 is kept", r.Epoch(1).Load(), 0)
	})
}

// It answers after all: the connections made elsewhere meanwhile drain, and nothing was a failover.
func TestSuspectThatWasOnlySlow(t *testing.T) {
	scene(t, nil, two, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 200 * time.Millisecond })
		r.CallFailed(0, context.DeadlineExceeded)
		r.reaches(1)
		want(r.t, "said", r.heard(), "")
		r.pass(time.Second)
		r.stateIs(0, failover.Up)
		r.currentIs(0)
		want(r.t, "said", r.heard(), "drain 1")
		want(r.t, "events", r.kinds(), "")
	})
}

// It has become a standby, which a dial sees before its probe is answered: where checkouts go meanwhile they are right, and stay.
func TestSuspectThatHasLostItsRole(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), standby(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[1].back(writer(0)) // its timeline can't be read, so the first server is not fenced
		r.CheckNow(context.Background())
		epoch := r.Epoch(1).Load()
		r.servers[0].back(standby(0))
		r.servers[0].set(func(s *server) { s.latency = 200 * time.Millisecond })
		r.CallFailed(0, io.EOF)
		r.pass(100 * time.Millisecond)
		r.servers[0].set(func(s *server) { s.latency = 0 })
		r.reaches(1)
		r.reaches(1)
		want(r.t, "said", r.heard(), "")
		r.pass(time.Second)
		r.currentIs(1)
		want(r.t, "1 is kept", r.Epoch(1).Load(), epoch)
	})
}

// A second writer on the same timeline is no stand-in: that would split the data.
func TestSuspectIsNotStoodInForByASecondWriter(t *testing.T) {
	scene(t, targeting("read-write"), []failover.Observation{writer(1), writer(1)}, func(r *rig) {
		r.warmUp(0)
		r.servers[0].set(func(s *server) { s.latency = 200 * time.Millisecond })
		r.CallFailed(0, context.DeadlineExceeded)
		r.reaches(0)
	})
}
