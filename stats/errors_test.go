package stats

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Errors are told apart by kind and code, with when they came first and last, since the start and since a Reset.
func TestErrorCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Recorder
		start := time.Now()
		r.CountError(ErrorStatement, "23505")
		time.Sleep(time.Second)
		r.CountError(ErrorStatement, "23505")
		r.CountError(ErrorDial, "refused")
		var s Snapshot
		r.Fill(&s)
		if len(s.Errors) != 2 || s.Errors[0].Kind != ErrorDial || s.Errors[1].Count != 2 ||
			!s.Errors[1].First.Equal(start) || !s.Errors[1].Last.Equal(start.Add(time.Second)) {
			t.Errorf("%v", s.Errors)
		}
		if text := s.String(); !strings.Contains(text, "2 statement 23505, last at ") {
			t.Errorf("as text:\n%s", text)
		}
		r.Reset()
		time.Sleep(time.Second)
		r.CountError(ErrorDial, "refused")
		r.Fill(&s)
		if len(s.Errors) != 1 || s.Errors[0].Count != 1 || !s.Errors[0].First.Equal(start.Add(2*time.Second)) {
			t.Errorf("after Reset: %v", s.Errors)
		}
		r.FillTotals(&s)
		if len(s.Errors) != 2 || s.Errors[0].Count != 2 || !s.Errors[0].First.Equal(start.Add(time.Second)) {
			t.Errorf("ever: %v", s.Errors)
		}
	})
}

// However many codes a server invents, memory stays bounded and the sum is right.
func TestErrorCountsAreBounded(t *testing.T) {
	var r Recorder
	for n := range 10 * mostErrors {
		r.CountError(ErrorStatement, fmt.Sprintf("P%04d", n))
	}
	var s Snapshot
	r.Fill(&s)
	sum := int64(0)
	for _, e := range s.Errors {
		sum += e.Count
	}
	if len(s.Errors) > mostErrors+1 || sum != 10*mostErrors {
		t.Errorf("%d kinds, %d errors", len(s.Errors), sum)
	}
	if text, err := json.Marshal(Snapshot{}); err != nil || !strings.Contains(string(text), `"errors":[]`) {
		t.Errorf("without errors: %s, %v", text, err)
	}
}

// What a histogram has counted since an earlier reading is as if only that had been counted.
func TestLatencySince(t *testing.T) {
	var both, later Histogram
	for range 1000 {
		both.Record(time.Second)
	}
	earlier := latencyOf(&both)
	if since := latencyOf(&both).Since(earlier); since != (Latency{}) {
		t.Errorf("nothing was added: %v", since)
	}
	for n := range 100 {
		both.Record(time.Duration(n) * time.Millisecond)
		later.Record(time.Duration(n) * time.Millisecond)
	}
	got, want := latencyOf(&both).Since(earlier), latencyOf(&later)
	if got.Count != want.Count || got.Sum != want.Sum || got.Mean != want.Mean || got.P50 != want.P50 || got.P99 != want.P99 ||
		got.Max < want.Max || got.Max > want.Max*5/4 {
		t.Errorf("%v, want %v", got, want)
	}
}
