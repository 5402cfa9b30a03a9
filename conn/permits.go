package conn

import (
	"container/list"
	"context"
	"time"
)

// permits say how many connections may be out at a time, and who waits for one, first come first served. Pool.mu guards them,
// so that a permit and what it is for change hands at once. (x/sync's semaphore has a lock of its own, and a wait that ends by
// any of a context, a time-out and the pool's end costs it three contexts.)
type permits struct {
	limit   int // negative: none
	out     int
	waiting list.List // of chan struct{}, closed when its owner has a permit
}

// take takes a permit, if there is one and nobody has waited for it.
func (q *permits) take() bool {
	if q.limit >= 0 && (q.out >= q.limit || q.waiting.Len() > 0) {
		return false
	}
	q.out++
	return true
}

// giveBack gives a permit to whoever has waited longest, or back.
func (q *permits) giveBack() {
	if first := q.waiting.Front(); first != nil {
		close(q.waiting.Remove(first).(chan struct{}))
	} else {
		q.out--
	}
}

// release gives a permit back.
func (p *Pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permits.giveBack()
}

// waitForPermit queues for a permit, for as long as the context, the time-out (0: none) and the pool last.
func (p *Pool) waitForPermit(ctx context.Context, timeout time.Duration) error {
	p.mu.Lock()
	if p.permits.take() {
		p.mu.Unlock()
		return nil
	}
	given := make(chan struct{})
	place := p.permits.waiting.PushBack(given)
	p.mu.Unlock()

	var late <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		late = timer.C
	}
	var err error
	select {
	case <-given:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-late:
		err = ErrPoolTimeout
	case <-p.ctx.Done():
		err = ErrClosed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-given: // too late
		p.permits.giveBack()
	default:
		p.permits.waiting.Remove(place)
	}
	return err
}
