package conn

import (
	"time"

	"github.com/managedpg/managedpg/leak"
)

// mostWaiters bounds how many of those who wait are looked at, the first in the queue.
const mostWaiters = 1000

// Waiting says at which lines of code checkouts of a governed pool wait for a connection now. It needs leak detection.
func (p *Pool) Waiting() []leak.Waiting {
	if !p.governed || p.opts.Leaks == nil {
		return nil
	}
	return p.opts.Leaks.Queue(func(yield func(*leak.Waiter, time.Duration) bool) {
		for _, w := range p.lending.Waiters(mostWaiters) {
			who, _ := w.Who.(*leak.Waiter)
			if !yield(who, w.Waited) {
				return
			}
		}
	})
}
