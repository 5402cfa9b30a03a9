package web

import (
	"sync"
	"time"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/stats"
)

const (
	interval = time.Second      // between samples
	recent   = 5 * time.Minute  // for which each is kept
	past     = 30 * time.Minute // for which one of each step is kept
	step     = 10 * time.Second

	latencyStep = 30 * time.Second // between two readings of the histograms, of which those of the last minutes are kept
)

// sample is a pool at one moment: what there is, and what has been counted since the start.
type sample struct {
	at                  time.Time
	open, used, waiting int64
	checkouts, dials    int64
	errors              errorSums
}

// errorSums are counts of errors, those of a kind together.
type errorSums [numErrorSums]int64

const (
	timeouts = iota
	otherCheckouts
	failedDials
	lostCalls
	statements
	numErrorSums
)

func sumOf(kind stats.ErrorKind) int {
	switch kind {
	case stats.ErrorPoolTimeout:
		return timeouts
	case stats.ErrorCheckout:
		return otherCheckouts
	case stats.ErrorDial:
		return failedDials
	case stats.ErrorStatement:
		return statements
	default:
		return lostCalls
	}
}

func sampleOf(at time.Time, s *stats.Snapshot) sample {
	one := sample{at: at, open: s.Open, used: s.CheckedOut, waiting: s.Waiting, checkouts: s.TotalCheckouts, dials: s.TotalConnectionsCreated}
	for _, e := range s.Errors {
		one.errors[sumOf(e.Kind)] += e.Count
	}
	return one
}

// latencies are the histograms at one moment.
type latencies struct {
	at                    time.Time
	checkout, use, create stats.Latency
}

// history is what is remembered of a pool: some 50 KB, however long it runs, and up to 15 KB for each of its standbys.
type history struct {
	old, recent []sample
	latencies   []latencies
	lags        map[string][]lagPoint // by endpoint
}

// add takes a sample, and thins out or forgets what has become too old.
func (h *history) add(s *stats.Snapshot, now time.Time) {
	h.recent = append(h.recent, sampleOf(now, s))
	for now.Sub(h.recent[0].at) > recent {
		h.thin(h.recent[0])
		h.recent = h.recent[1:]
	}
	for len(h.old) > 0 && now.Sub(h.old[0].at) > past+step {
		h.old = h.old[1:]
	}
	if n := len(h.latencies); n == 0 || now.Sub(h.latencies[n-1].at) >= latencyStep {
		h.latencies = append(h.latencies, latencies{now, s.CheckoutTime, s.UseTime, s.CreateTime})
	}
	for len(h.latencies) > 1 && now.Sub(h.latencies[1].at) > recent {
		h.latencies = h.latencies[1:]
	}
}

// thin keeps one sample of each step, with the most that was seen in it.
func (h *history) thin(s sample) {
	last := len(h.old) - 1
	if last < 0 || s.at.Truncate(step) != h.old[last].at.Truncate(step) {
		h.old = append(h.old, s)
		return
	}
	o := h.old[last]
	s.open, s.used, s.waiting = max(s.open, o.open), max(s.used, o.used), max(s.waiting, o.waiting)
	h.old[last] = s
}

// sampler remembers the last half hour of all pools. A timer is all that runs.
type sampler struct {
	mu    sync.Mutex
	pools map[*driver.Connector]*history
}

// tick takes a sample, and another one after each interval, for good.
func (s *sampler) tick() {
	s.take(time.Now())
	time.AfterFunc(interval, s.tick)
}

func (s *sampler) take(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[*driver.Connector]*history) // without the pools that have been closed
	for _, p := range driver.Connectors() {
		h := s.pools[p]
		if h == nil {
			h = new(history)
			if now.Sub(p.Opened()) < recent { // all that it has counted is of the last minutes
				h.latencies = []latencies{{at: p.Opened()}}
			}
			if now.Sub(p.Opened()) <= interval { // and of the last moment
				h.recent = []sample{{at: now.Add(-interval)}}
			}
		}
		figures, health := p.Totals()
		h.add(&figures, now)
		h.addLags(health.Endpoints, now)
		next[p] = h
	}
	s.pools = next
}

// of is what is remembered of a pool, oldest first, with the present as the last, its histograms some minutes ago, and how far its endpoints
// were behind.
func (s *sampler) of(p *driver.Connector, now time.Time, figures *stats.Snapshot) (samples []sample, before latencies, lags map[string][]lagPoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.pools[p]; h != nil {
		samples = append(append(samples, h.old...), h.recent...)
		before = h.latencies[0]
		lags = h.clonedLags()
	}
	return append(samples, sampleOf(now, figures)), before, lags
}
