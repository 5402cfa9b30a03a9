package leak_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/leak"
)

//go:noinline
func queuedCaller(tracker *leak.Tracker, t *testing.T) *leak.Waiter { return tracker.Wait(t.Context()) }

//go:noinline
func hopelessCaller(tracker *leak.Tracker, t *testing.T) { tracker.GaveUp(t.Context(), 3*time.Second) }

// Who waits is told by line of code, and a wait in vain is counted for its line too.
func TestWaiting(t *testing.T) {
	tracker := leak.New(leak.Options{Pool: "app", StackDepth: 16, Base: time.Now()})
	queue := tracker.Queue(func(yield func(*leak.Waiter, time.Duration) bool) {
		yield(nil, time.Second)
		yield(queuedCaller(tracker, t), 2*time.Second)
		yield(queuedCaller(tracker, t), 3*time.Second)
	})
	if len(queue) != 2 || !strings.Contains(queue[0].Caller, "queuedCaller") || queue[0].Checkouts != 2 ||
		queue[0].Longest != 3*time.Second || queue[1] != (leak.Waiting{Checkouts: 1, Longest: time.Second}) {
		t.Errorf("%+v", queue)
	}
	if b, err := json.Marshal(leak.Waiting{Caller: "a", Checkouts: 2, Longest: 1500 * time.Millisecond}); err != nil ||
		string(b) != `{"caller":"a","checkouts":2,"longest":1.5}` {
		t.Errorf("%s, %v", b, err)
	}
	hopelessCaller(tracker, t)
	usage := tracker.Usage()
	if len(usage) != 1 || !strings.Contains(usage[0].Caller, "hopelessCaller") || usage[0].Waited != 3*time.Second || usage[0].Checkouts != 0 {
		t.Errorf("%+v", usage)
	}
}

//go:noinline
func hastyCaller(tracker *leak.Tracker, t *testing.T) { tracker.TimedOut(t.Context()) }

// Calls that run out of time are counted for the line that makes them, each, until the window is over.
func TestTimedOut(t *testing.T) {
	tracker := leak.New(leak.Options{Pool: "app", StackDepth: 16, Base: time.Now()})
	for range 3 {
		hastyCaller(tracker, t)
	}
	usage := tracker.Usage()
	if len(usage) != 1 || !strings.Contains(usage[0].Caller, "hastyCaller") || usage[0].TimedOut != 3 || usage[0].Checkouts != 0 {
		t.Errorf("%+v", usage)
	}
	if usage = tracker.UsageAt(leak.UsageWindow + time.Minute); len(usage) != 0 {
		t.Errorf("after the window there is still %+v", usage)
	}
}

// The longest hold is told of what has ended, and of what is held now.
func TestUsageTellsTheLongestHold(t *testing.T) {
	tracker := leak.New(leak.Options{Pool: "app", StackDepth: 16, Base: time.Now()})
	s := tracker.Slot(1, "db:5432/app", 0, nil)
	defer s.Remove()
	greedyCaller(s, t.Context(), 0)
	s.CheckIn(6 * time.Second)
	greedyCaller(s, t.Context(), 10*time.Second)
	usage := tracker.UsageAt(12 * time.Second)
	if len(usage) != 1 || usage[0].Longest != 6*time.Second || usage[0].Now != 1 {
		t.Errorf("%+v", usage)
	}
	if usage = tracker.UsageAt(20 * time.Second); usage[0].Longest != 10*time.Second {
		t.Errorf("%+v", usage)
	}
}
