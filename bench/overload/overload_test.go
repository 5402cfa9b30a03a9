package main

import (
	"testing"
	"time"
)

func TestRecovery(t *testing.T) {
	since := time.Now()
	at := func(ms int, ok bool) call {
		began := since.Add(time.Duration(ms) * time.Millisecond)
		return call{began: began, end: began.Add(time.Millisecond), ok: ok}
	}
	var calls []call
	for ms := -1000; ms < 3000; ms += 10 {
		calls = append(calls, at(ms, ms >= 200))
	}
	if got := recovery(calls, since); got != 200*time.Millisecond {
		t.Errorf("recovered after %v, want 200ms", got)
	}
	calls = append(calls, at(205, false)) // one in a hundred changes nothing
	if got := recovery(calls, since); got > 250*time.Millisecond {
		t.Errorf("with one failure, recovered after %v", got)
	}
	for i := range calls {
		calls[i].ok = false
	}
	if got := recovery(calls, since); got != 3*time.Second {
		t.Errorf("never, but after %v", got)
	}
}

func TestMedians(t *testing.T) {
	if got := medians([]figures{{"a": 1}, {"a": 9}, {"a": 2}}); got["a"] != 2 {
		t.Errorf("median %v, want 2", got)
	}
}

func TestVerdictKnowsNoise(t *testing.T) {
	peers := map[string]figures{barePgx: {"p99": 20}, pgxPool: {"p99": 20}}
	quiet, loud := medians([]figures{{"p99": 26}, {"p99": 26}, {"p99": 26}}), medians([]figures{{"p99": 17}, {"p99": 26}, {"p99": 40}})
	if got := below.verdict(quiet, peers); len(got) != 2 {
		t.Errorf("all runs are worse: misses %q, want 2", got)
	}
	if got := below.verdict(loud, peers); len(got) != 0 {
		t.Errorf("runs differ by more: misses %q", got)
	}
}

func TestVerdictMisses(t *testing.T) {
	s := overload(2)
	bare := map[string]figures{barePgx: {"share": 1}}
	if got := s.verdict(figures{"share": 1, "p50": 20, "sessions": 9}, bare); len(got) != 0 {
		t.Errorf("misses %q", got)
	}
	if got := s.verdict(figures{"share": 0.8, "p50": 200, "sessions": 17}, bare); len(got) != 4 {
		t.Errorf("misses %q, want 4", got)
	}
}
