package main

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"
)

func TestSummarizeWaits(t *testing.T) {
	waits := []float64{100}
	for i := range 100 {
		waits = append(waits, float64(i))
	}
	got := summarizeWaits(waits, 2*time.Second)
	want := turnout{perSecond: 50.5, median: 50, p99: 99, longest: 100}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := unevenness.of(want); got != 2 {
		t.Errorf("longest/median = %v", got)
	}
}

func TestCrowdEndsWithItsErrors(t *testing.T) {
	broken := errors.New("broken")
	c := crowd{workers: 3, call: func(context.Context, *sql.DB) (time.Duration, error) { return 0, broken }}
	if _, err := c.run(nil, time.Minute); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestClaimsGoRoundByRound(t *testing.T) {
	a, b := &subject{name: "a"}, &subject{name: "b"}
	h := &heats{&contest{}, map[*subject][]turnout{}}
	for _, speed := range []float64{1, 10, 3} { // of the machine
		h.turnouts[a] = append(h.turnouts[a], turnout{perSecond: 100 * speed, p99: 4 / speed})
		h.turnouts[b] = append(h.turnouts[b], turnout{perSecond: 200 * speed, p99: 1 / speed})
	}
	if got := h.beside(b, a, throughput); got.ratio != 2 || got.ratioError != 0 {
		t.Errorf("throughput %+v", got)
	}
	if got := h.beside(b, a, p99); got.ratio != 0.25 {
		t.Errorf("p99 %+v", got)
	}
}
