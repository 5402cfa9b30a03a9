package main

import (
	"errors"
	"math"
	"testing"
	"time"
)

// history makes calls from seconds, with a quick and good one before the fault at 0.
func history(calls ...[3]float64) (all []attempt, e event) {
	zero := time.Now()
	at := func(s float64) time.Time { return zero.Add(time.Duration(s * float64(time.Second))) }
	all = []attempt{{id: 0, start: at(-1), end: at(-0.999)}}
	for i, c := range calls {
		a := attempt{id: int64(i + 1), start: at(c[0]), end: at(c[1])}
		if c[2] == 0 {
			a.err = errors.New("lost")
		}
		all = append(all, a)
	}
	return all, event{struck: zero, since: at(0.5), end: at(10)}
}

const failed, succeeded = 0, 1

func TestJudge(t *testing.T) {
	calls, e := history(
		[3]float64{-0.001, 0.1, failed},
		[3]float64{0.45, 0.6, succeeded}, // begun before all could be well: late
		[3]float64{0.6, 0.601, succeeded},
		[3]float64{0.9, 2.5, failed},
		[3]float64{3, 3.001, succeeded},
	)
	got, err := judge(calls, rows{2: {1}, 3: {1, 1}, 5: {1}}, e)
	if err != nil {
		t.Fatal(err)
	}
	if got.errors != 2 || got.doubled != 1 || got.slow != 1 {
		t.Errorf("%+v", got)
	}
	if math.Round(got.first) != 101 || math.Round(got.steady) != 2000 {
		t.Errorf("first %v, steady %v", got.first, got.steady)
	}
}

func TestJudgeTakesTheServerThatTookOver(t *testing.T) {
	calls, e := history([3]float64{-0.001, 0.7, succeeded}, [3]float64{0.6, 0.8, succeeded})
	e.to = 2
	got, err := judge(calls, rows{1: {1}, 2: {2}}, e)
	if err != nil || math.Round(got.first) != 300 {
		t.Errorf("first %v, %v", got.first, err)
	}
}

func TestJudgeWhatNeverCameBack(t *testing.T) {
	calls, e := history([3]float64{-0.001, 2, failed}, [3]float64{2, 11, succeeded}, [3]float64{9.999, 10.001, succeeded})
	e.to = 2
	got, err := judge(calls, rows{2: {1}, 3: {1}}, e)
	if err != nil {
		t.Fatal(err)
	}
	if got.errors != 2 || !math.IsInf(got.first, 1) || !math.IsInf(got.steady, 1) || got.slow != 2 {
		t.Errorf("%+v", got)
	}
}

func TestJudgeRefusesErrorsBeforeTheFault(t *testing.T) {
	calls, e := history([3]float64{-0.5, -0.4, failed})
	if _, err := judge(calls, rows{}, e); err == nil {
		t.Error("nothing said")
	}
}
