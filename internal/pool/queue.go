package pool

import (
	"context"
	"sync/atomic"
	"time"
)

// queue is who waits, in the order in which they came. Pool.mu guards it.
type queue[T any] struct {
	oldest, newest *waiter[T]
	len            int
	stands         time.Time // since when it stands: the newest are served first; zero: it doesn't
	standsUntil    time.Time // at least: somebody's time has run out

	late *time.Timer // dismisses those whose Timeout has passed; nil before the first wait
	set  bool
}

// waiter is a call of Acquire that waits.
type waiter[T any] struct {
	ctx     context.Context
	since   time.Time
	until   time.Time           // when it gives up; zero: never
	timeout time.Time           // when the pool's Timeout has passed; zero: never
	who     atomic.Pointer[any] // what Options.Who said; nil before

	over  chan struct{}
	dials int // under way that were begun for it
	thing T
	fresh bool
	err   error

	gone         bool // from the queue
	older, newer *waiter[T]
}

// overdue: the pool's Timeout has passed.
func (w *waiter[T]) overdue() bool { return !w.timeout.IsZero() && !time.Now().Before(w.timeout) }

// push adds a waiter: as the newest, or as the oldest when it has been served before and got what was of no use.
func (q *queue[T]) push(w *waiter[T], again bool) {
	q.len++
	switch {
	case q.oldest == nil:
		q.oldest, q.newest = w, w
	case again:
		w.newer = q.oldest
		q.oldest.older = w
		q.oldest = w
	default:
		w.older = q.newest
		q.newest.newer = w
		q.newest = w
	}
}

// at is the waiter with n before it; nil if there is none.
func (q *queue[T]) at(n int) *waiter[T] {
	if n >= q.len {
		return nil
	}
	w := q.oldest
	for range n {
		w = w.newer
	}
	return w
}

func (q *queue[T]) remove(w *waiter[T]) {
	q.len--
	w.gone = true
	if w.older != nil {
		w.older.newer = w.newer
	} else {
		q.oldest = w.newer
	}
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		q.newest = w.older
	}
	w.older, w.newer = nil, nil
	if q.len == 0 {
		q.stands = time.Time{}
	}
}

// next is who is to be served.
func (q *queue[T]) next(now time.Time) *waiter[T] {
	w := q.oldest
	if w == nil {
		return nil
	}
	if q.len > 1 && (now.Before(q.standsUntil) || !w.until.IsZero() && now.Sub(w.since) > 3*w.until.Sub(now)) {
		if q.stands.IsZero() {
			q.stands = now
		}
		return q.newest
	}
	q.stands = time.Time{}
	return w
}

// waitLocked queues for a thing, for as long as the context, Timeout and the pool last. It gives the lock back. Who has been served before what
// was of no use goes on with the wait that began then.
func (p *Pool[T]) waitLocked(ctx context.Context, began time.Time) (thing T, waited time.Duration, fresh bool, err error) {
	now := time.Now()
	again := !began.IsZero()
	w := &waiter[T]{ctx: ctx, since: now, over: make(chan struct{})}
	if again {
		w.since = began
	}
	w.until, _ = ctx.Deadline()
	if p.opts.Timeout >= 0 {
		w.timeout = w.since.Add(p.opts.Timeout)
		if w.until.IsZero() || w.timeout.Before(w.until) {
			w.until = w.timeout
		}
	}
	if err := ctx.Err(); err != nil {
		p.mu.Unlock()
		return thing, 0, false, err
	}
	p.queue.push(w, again)
	p.dialLocked()
	switch {
	case !p.paused.IsZero() && p.opts.Timeout != 0:
	case p.paused.IsZero() && p.helplessLocked():
		err = p.supply.err
	case p.opts.Timeout == 0 && (!p.paused.IsZero() || p.supply.underWay() < p.queue.len):
		err = ErrTimeout
	}
	if err != nil {
		p.queue.remove(w)
		p.mu.Unlock()
		return thing, 0, false, err
	}
	if again {
		p.dismissLocked(ErrTimeout)
	}
	p.watchLocked(p.opts.Timeout)
	p.mu.Unlock()

	if p.opts.Who != nil {
		who := p.opts.Who(ctx)
		w.who.Store(&who)
	}
	select {
	case <-w.over:
	case <-ctx.Done():
		if p.leave(w) {
			return thing, time.Since(now), false, ctx.Err()
		}
	}
	if w.err == nil && ctx.Err() != nil { // both at once: it must not be served whose context has ended
		p.handBack(w.thing, w.fresh)
		return thing, time.Since(now), false, ctx.Err()
	}
	return w.thing, time.Since(now), w.fresh, w.err
}

// Waiter is a call of Acquire that waits.
type Waiter struct {
	Who    any // what Options.Who said; nil if it hasn't yet
	Waited time.Duration
}

// Waiters are those who have waited for longest, at most so many.
func (p *Pool[T]) Waiters(most int) []Waiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Waiter
	now := time.Now()
	for w := p.queue.oldest; w != nil && len(all) < most; w = w.newer {
		one := Waiter{Waited: now.Sub(w.since)}
		if who := w.who.Load(); who != nil {
			one.Who = *who
		}
		all = append(all, one)
	}
	return all
}

// leave takes a waiter out of the queue whose context has ended, unless it was served meanwhile.
func (p *Pool[T]) leave(w *waiter[T]) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.over:
		return false
	default:
	}
	if w.ctx.Err() == context.DeadlineExceeded {
		p.queue.ranOut(w)
	}
	p.queue.remove(w)
	return true
}

// ranOut: a waiter's time has run out in the queue.
func (q *queue[T]) ranOut(w *waiter[T]) {
	q.standsUntil = w.until.Add(w.until.Sub(w.since))
}

// handBack gives back what somebody was served whose context had ended.
func (p *Pool[T]) handBack(thing T, fresh bool) {
	p.mu.Lock()
	p.returnedLocked()
	kept := p.putLocked(thing, p.opts.Now(), fresh)
	p.mu.Unlock()
	if !kept {
		p.things.Close(thing, ErrSurplus, p.Gone)
	}
}

// serveLocked gives a thing to whoever is next, if anybody waits whose context hasn't ended.
func (p *Pool[T]) serveLocked(thing T, fresh bool) bool {
	if p.queue.len == 0 {
		return false
	}
	now := time.Now()
	for {
		w := p.queue.next(now)
		if w == nil {
			return false
		}
		first := w == p.queue.oldest
		if err := w.ctx.Err(); err != nil { // it is about to find out by itself
			if err == context.DeadlineExceeded {
				p.queue.ranOut(w)
			}
			p.failLocked(w, err)
			continue
		}
		if !first {
			p.figures.NewestFirst++
		}
		p.serveOneLocked(w, thing, fresh)
		return true
	}
}

func (p *Pool[T]) serveOneLocked(w *waiter[T], thing T, fresh bool) {
	p.queue.remove(w)
	w.thing, w.fresh = thing, fresh
	p.lent++
	w.end(nil)
}

func (w *waiter[T]) end(err error) {
	w.err = err
	close(w.over)
}

// failLocked ends a wait with an error.
func (p *Pool[T]) failLocked(w *waiter[T], err error) {
	p.queue.remove(w)
	w.end(err)
}

// failAllLocked ends the waits that began by then, but for those whose own dial is under way.
func (p *Pool[T]) failAllLocked(err error, by time.Time) {
	for w := p.queue.oldest; w != nil; {
		next := w.newer
		if w.dials == 0 && !w.since.After(by) {
			p.failLocked(w, err)
		}
		w = next
	}
}

// watchLocked sets the timer for those whose Timeout will have passed.
func (p *Pool[T]) watchLocked(d time.Duration) {
	q := &p.queue
	if p.opts.Timeout <= 0 || q.set {
		return
	}
	q.set = true
	if q.late == nil {
		q.late = time.AfterFunc(d, p.dismiss)
	} else {
		q.late.Reset(d)
	}
}

// dismiss ends the waits of those whose Timeout has passed.
func (p *Pool[T]) dismiss() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue.set = false
	p.dismissLocked(ErrTimeout)
}

// dismissLocked ends the waits of those whose Timeout has passed, but for as many as dials are under way: what is dialled for them has
// its own limit. Everybody waits equally long, so they are the oldest; without a limit of places they are those whose own dials these are.
func (p *Pool[T]) dismissLocked(why error) {
	if p.opts.Timeout < 0 {
		return
	}
	now, dials := time.Now(), p.supply.underWay()
	if p.limit < 0 {
		dials = p.supply.nobodys()
	}
	for w := p.queue.oldest; w != nil; {
		next := w.newer
		if left := w.timeout.Sub(now); left > 0 {
			p.watchLocked(left)
			return
		}
		switch {
		case p.limit < 0 && w.dials > 0:
		case dials > 0:
			dials--
		default:
			p.queue.ranOut(w)
			p.failLocked(w, why)
		}
		w = next
	}
}
