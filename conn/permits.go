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
	waiting list.List // of *turn

	// Everybody waits equally long, so one timer will do: it is set for who has waited longest, or for somebody before.
	patience time.Duration // pool_timeout; not positive: no end
	late     *time.Timer   // calls dismiss; nil before the first wait
	set      bool
}

// turn is what somebody waits for.
type turn struct {
	since time.Duration
	over  chan struct{} // closed with the wait
	err   error         // why there is no permit then
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
		q.end(first, nil)
	} else {
		q.out--
	}
}

// end ends a wait: with a permit, or an error.
func (q *permits) end(place *list.Element, err error) {
	t := q.waiting.Remove(place).(*turn)
	t.err = err
	close(t.over)
}

// close ends all waits with ErrClosed.
func (q *permits) close() {
	for first := q.waiting.Front(); first != nil; first = q.waiting.Front() {
		q.end(first, ErrClosed)
	}
	if q.late != nil {
		q.late.Stop()
	}
}

// release gives a permit back.
func (p *Pool) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permits.giveBack()
}

// waitForPermit queues for a permit, for as long as the context, pool_timeout and the pool last.
func (p *Pool) waitForPermit(ctx context.Context, since time.Duration) error {
	p.mu.Lock()
	q := &p.permits
	if p.closed {
		p.mu.Unlock()
		return ErrClosed
	}
	if q.take() {
		p.mu.Unlock()
		return nil
	}
	t := &turn{since: since, over: make(chan struct{})}
	place := q.waiting.PushBack(t)
	if q.patience > 0 && !q.set {
		q.set = true
		if q.late == nil {
			q.late = time.AfterFunc(q.patience, p.dismiss)
		} else {
			q.late.Reset(q.patience)
		}
	}
	p.mu.Unlock()

	select {
	case <-t.over:
		return t.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-t.over: // too late
		if t.err == nil {
			q.giveBack()
		}
	default:
		q.waiting.Remove(place)
	}
	return ctx.Err()
}

// dismiss ends the waits of those who have waited for pool_timeout.
func (p *Pool) dismiss() {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &p.permits
	q.set = false
	for first := q.waiting.Front(); first != nil; first = q.waiting.Front() {
		if left := first.Value.(*turn).since + q.patience - now(); left > 0 {
			q.set = true
			q.late.Reset(left)
			return
		}
		q.end(first, ErrPoolTimeout)
	}
}
