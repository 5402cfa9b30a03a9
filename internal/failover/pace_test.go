package failover

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	const ms = time.Millisecond
	now := time.Unix(1000, 0)
	for _, test := range []struct {
		name   string
		pace   pace // its interval is 5 s, unless it says so
		chance float64
		want   time.Duration
	}{
		{"up", pace{state: Up}, 0, 5000 * ms},
		{"up, by chance a tenth earlier", pace{state: Up}, 1, 4500 * ms},
		{"unknown", pace{state: Unknown}, 0, 5000 * ms},
		{"misconfigured", pace{state: Misconfigured, fails: 3}, 0, 5000 * ms},
		{"suspect", pace{state: Suspect}, 1, 100 * ms},
		{"suspect, with a short interval", pace{state: Suspect, interval: 50 * ms}, 0, 50 * ms},
		{"down, by a dial", pace{state: Down}, 0, 100 * ms},
		{"down, by a probe", pace{state: Down, fails: 1}, 0, 100 * ms},
		{"down, by a probe, by chance earlier", pace{state: Down, fails: 1}, 0.5, 95 * ms},
		{"down, by two", pace{state: Down, fails: 2}, 0, 200 * ms},
		{"down, by six", pace{state: Down, fails: 6}, 0, 3200 * ms},
		{"down, by seven", pace{state: Down, fails: 7}, 0, 5000 * ms},
		{"down, by very many", pace{state: Down, fails: 1000}, 0, 5000 * ms},
		{"down, and wanted for its share", pace{state: Down, fails: 9, spread: true}, 0, awaitEvery},
		{"up, where connections are spread", pace{state: Up, spread: true}, 0, 5000 * ms},
		{"a lag that will be certain", pace{state: Up, lagAt: now.Add(300 * ms)}, 1, 300 * ms},
		{"a lag that will be certain late", pace{state: Up, lagAt: now.Add(time.Minute)}, 0, 5000 * ms},
		{"a lag that could be certain", pace{state: Up, lagAt: now}, 0, 5000 * ms},
		{"the lag of one that is suspect", pace{state: Suspect, lagAt: now.Add(10 * ms)}, 0, 100 * ms},
		{"hurrying", pace{state: Down, fails: 5, hurrying: now}, 1, 5 * ms},
		{"hurrying since 400 ms", pace{state: Down, fails: 5, hurrying: now.Add(-400 * ms)}, 1, 10 * ms},
		{"hurrying since 4 s", pace{state: Down, fails: 9, hurrying: now.Add(-4000 * ms)}, 1, 25 * ms},
		{"hurrying since 6 s", pace{state: Down, fails: 9, hurrying: now.Add(-6000 * ms)}, 1, 150 * ms},
		{"hurrying since an hour", pace{state: Down, fails: 9, hurrying: now.Add(-time.Hour)}, 1, time.Second},
		{"hurrying for one of the wrong role", pace{state: Up, hurrying: now}, 0, 5 * ms},
	} {
		if test.pace.interval == 0 {
			test.pace.interval = 5 * time.Second
		}
		if got := test.pace.wait(now, test.chance); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// What calls tell asks for probes, but not for a stream of them.
func TestEvidenceWait(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		calm int
		ago  time.Duration
		want time.Duration
		then int
	}{
		{0, 0, 25 * ms, 1},
		{1, 30 * ms, 50 * ms, 2},
		{5, 900 * ms, 800 * ms, 6},
		{6, 900 * ms, time.Second, 7},
		{100, 0, time.Second, 101},
		{6, 1001 * ms, 25 * ms, 1},
	} {
		wait, then := evidenceWait(test.calm, test.ago)
		if wait != test.want || then != test.then {
			t.Errorf("%d, %v: %v, %d; want %v, %d", test.calm, test.ago, wait, then, test.want, test.then)
		}
	}
}
