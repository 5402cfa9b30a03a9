package leak_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/leak"
)

func TestReclaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(map[uint64]*leak.Slot)
		var asked []uint64
		f := newFixture(t, leak.Options{Threshold: time.Second, ReclaimAfter: 2 * time.Second})
		f.reclaim = func(checkout uint64, r leak.Report) bool {
			asked = append(asked, checkout)
			if !r.Reclaimed || slots[r.ConnectionID] == nil || r.Duration != 2*time.Second || r.Caller == "" {
				t.Errorf("report: %+v", r)
			}
			slots[r.ConnectionID].Remove()
			return true
		}
		slots[1] = f.slot(1)
		f.checkOut(slots[1])
		slots[1].CheckIn(f.Now())
		number := f.checkOut(slots[1])
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(asked) != 1 || asked[0] != number {
			t.Errorf("asked for checkouts %v, want %d", asked, number)
		}
		if f.Total() != 1 || f.Reclaimed() != 1 || f.Leaked() != 0 {
			t.Errorf("%d in total, %d reclaimed, %d leaked", f.Total(), f.Reclaimed(), f.Leaked())
		}
		if reports := f.reported(); len(reports) != 1 || reports[0].Reclaimed {
			t.Errorf("reported %v", reports)
		}
		f.wantLines(tooLong, reclaimed)
		f.Reset()
		if f.Reclaimed() != 0 {
			t.Errorf("after Reset %d reclaimed", f.Reclaimed())
		}
	})
}

// A connection that is busy is left alone, and asked for again until it isn't.
func TestReclaimIsRefusedWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busyUntil := time.Now().Add(10 * time.Second)
		var asked atomic.Int64
		f := newFixture(t, leak.Options{Threshold: threshold, ReclaimAfter: 2 * time.Second})
		f.reclaim = func(uint64, leak.Report) bool { asked.Add(1); return time.Now().After(busyUntil) }
		s := f.slot(1)
		f.checkOut(s)
		time.Sleep(10*time.Second - time.Millisecond)
		f.wantLines()
		if f.Total() != 0 || f.Reclaimed() != 0 || asked.Load() == 0 || asked.Load() > 300 {
			t.Errorf("%d in total, %d reclaimed after asking %d times", f.Total(), f.Reclaimed(), asked.Load())
		}
		time.Sleep(time.Second)
		if reports := f.reported(); len(reports) != 1 || !reports[0].Reclaimed || reports[0].Duration > 10*time.Second+50*time.Millisecond {
			t.Errorf("reported %v", reports)
		}
		f.wantLines(both)
		asked.Store(0)
		// The pool may close it later; until then nothing more is said of it, but that it still is there.
		time.Sleep(2 * threshold)
		synctest.Wait()
		if leaks := f.Leaks(); len(leaks) != 0 && !leaks[0].Reclaimed {
			t.Errorf("Leaks() = %v", leaks)
		}
		s.Remove()
		f.wantLines()
		if asked.Load() > 0 || f.Total() != 1 || f.Reclaimed() != 1 {
			t.Errorf("asked %d times more; %d in total, %d reclaimed", asked.Load(), f.Total(), f.Reclaimed())
		}
	})
}

func TestReclaimWithoutThreshold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, leak.Options{ReclaimAfter: 2 * time.Second})
		f.reclaim = func(uint64, leak.Report) bool { return true }
		for id := range uint64(3) {
			f.checkOut(f.slot(id))
		}
		time.Sleep(2 * time.Minute)
		if f.Total() != 3 || f.Reclaimed() != 3 || len(f.reported()) != 3 {
			t.Errorf("%d in total, %d reclaimed", f.Total(), f.Reclaimed())
		}
		if l := f.wantLines(both, more)[1]; l["leaks"] != 2. || l["reclaimed"] != 2. {
			t.Errorf("logged %v", l)
		}
	})
}

// The holder gives it back while the tracker makes up its mind.
func TestCheckInWinsOverTheScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *leak.Slot
		f := newFixture(t, leak.Options{Threshold: threshold, ReclaimAfter: threshold})
		f.reclaim = func(uint64, leak.Report) bool { s.CheckIn(f.Now()); return false }
		s = f.slot(1)
		f.checkOut(s)
		time.Sleep(2 * threshold)
		f.wantLines()
		if f.Total() != 0 || f.Leaked() != 0 || f.Longest(1) != nil || len(f.reported()) > 0 {
			t.Error("a connection that came back was reported")
		}
	})
}
