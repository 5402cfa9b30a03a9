package failover

import (
	"sync"
	"time"
)

// strays are goroutines in code that isn't ours, and that may not end when it should: probes, lookups, and the one that tells the news.
type strays struct {
	mu      sync.Mutex // guards what follows
	running int
	none    chan struct{} // closed when none runs any more; nil: nobody waits for that
}

// run starts one.
func (s *strays) run(f func()) {
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
	go func() {
		f()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.running--; s.running == 0 && s.none != nil {
			close(s.none)
			s.none = nil
		}
	}()
}

// wait waits until none runs any more, but not for long.
func (s *strays) wait(most time.Duration) {
	s.mu.Lock()
	if s.running == 0 {
		s.mu.Unlock()
		return
	}
	none := make(chan struct{})
	s.none = none
	s.mu.Unlock()
	patience := time.NewTimer(most)
	defer patience.Stop()
	select {
	case <-none:
	case <-patience.C:
	}
}
