package web

import (
	"sync"
	"time"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/stats"
)

const (
	interval = time.Second     // between samples
	window   = 5 * time.Minute // that the chart shows
)

// sample is a pool at one moment.
type sample struct {
	at                  time.Time
	open, used, waiting int64
}

func sampleOf(at time.Time, s *stats.Snapshot) sample {
	return sample{at, s.Open, s.CheckedOut, s.Waiting}
}

// sampler remembers the last minutes of all pools. A timer is all that runs.
type sampler struct {
	mu      sync.Mutex
	samples map[*driver.Connector][]sample
}

// tick takes a sample, and another one after each interval, for good.
func (s *sampler) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(time.Now())
	time.AfterFunc(interval, s.tick)
}

// take needs the lock.
func (s *sampler) take(now time.Time) {
	next := make(map[*driver.Connector][]sample) // without the pools that have been closed
	for _, p := range driver.Connectors() {
		old := s.samples[p]
		for len(old) > 0 && now.Sub(old[0].at) > window+interval {
			old = old[1:]
		}
		figures, _ := p.Totals()
		next[p] = append(old, sampleOf(now, &figures))
	}
	s.samples = next
}

// of are the samples of a pool, oldest first, with the present as the last.
func (s *sampler) of(p *driver.Connector, last sample) []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(append([]sample{}, s.samples[p]...), last)
}
