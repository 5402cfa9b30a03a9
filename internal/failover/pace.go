package failover

import (
	"math/rand/v2"
	"time"
)

const (
	// firstRetry is the wait after an endpoint went down; it doubles with each failed probe, up to HealthCheckInterval.
	firstRetry = 100 * time.Millisecond
	// While no endpoint is usable and a checkout waits, those that aren't usable are probed ever more slowly: every
	// hurryFirst to begin with, then each fortieth of the outage, up to every hurry; and after hurryFor down to every
	// hurryAtMost.
	hurryFirst  = 5 * time.Millisecond
	hurry       = 25 * time.Millisecond
	hurryFor    = 5 * time.Second
	hurryAtMost = time.Second
	// evidenceGap is the least time between two probes that calls ask for. It doubles with each that finds nothing, up
	// to evidenceGapAtMost: an application whose every other statement meets 25006 must not cause a stream of probes.
	evidenceGap       = 25 * time.Millisecond
	evidenceGapAtMost = time.Second
)

// pace is all that the wait for an endpoint's next probe goes by, after one has ended.
type pace struct {
	interval time.Duration // HealthCheckInterval
	spread   bool          // connections are spread over the endpoints, so that each is wanted
	state    State
	fails    int       // failed probes in a row
	lagAt    time.Time // when a probe can be certain of what the last one could not; zero: it was
	hurrying time.Time // since when probes hurry for a checkout that waits for this endpoint; zero: none does
}

// wait is that wait. An endpoint that is up is probed every interval, less a tenth at most: chance, from 0 to 1, says what of that.
func (p pace) wait(now time.Time, chance float64) time.Duration {
	wait := shortened(p.interval, chance)
	switch p.state {
	case Suspect:
		wait = min(wait, firstRetry)
	case Down:
		wait = shortened(p.retry(), chance)
	}
	if p.state == Up && p.lagAt.After(now) {
		wait = min(wait, p.lagAt.Sub(now))
	}
	if !p.hurrying.IsZero() {
		wait = min(wait, hurryWait(now.Sub(p.hurrying)))
	}
	return wait
}

// retry is the wait for an endpoint that is down.
func (p pace) retry() time.Duration {
	retry := p.interval
	if p.fails < 16 {
		retry = min(retry, firstRetry<<max(0, p.fails-1))
	}
	if p.spread {
		retry = min(retry, awaitEvery)
	}
	return retry
}

// hurryWait is the wait while probes hurry, since so long.
func hurryWait(since time.Duration) time.Duration {
	return min(hurryAtMost, min(max(hurryFirst, since/40), hurry)+max(0, since-hurryFor)/8)
}

// evidenceWait is the least time between the last probe, which began so long ago, and one that evidence asks for, when so many that it
// asked for in a row have found nothing. Then is how many those are from now on.
func evidenceWait(calm int, ago time.Duration) (wait time.Duration, then int) {
	if ago > evidenceGapAtMost {
		calm = 0
	}
	wait = evidenceGapAtMost
	if calm < 6 {
		wait = min(wait, evidenceGap<<calm)
	}
	return wait, calm + 1
}

// shortened takes a part of a tenth off.
func shortened(d time.Duration, chance float64) time.Duration {
	return d - time.Duration(chance*float64(d/10))
}

// jittered takes a random part of a tenth off, so that those who began together don't go on together.
func jittered(d time.Duration) time.Duration { return shortened(d, rand.Float64()) }
