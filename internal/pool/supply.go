package pool

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// After two dials in a row that failed the next waits for firstPause, then for twice as long each time, up to longestPause, less a
	// random tenth. That is short enough for the first success to come within 50 ms of a server's return, and asks a server that
	// refuses 24 times a second at most, whatever the number of callers.
	firstPause   = 5 * time.Millisecond
	longestPause = 45 * time.Millisecond

	// slowDial is after how long a dial doesn't count any more as one that whoever waits may hope for: another one is begun beside it. Where
	// nothing limits their number whoever has a dial of its own under way gets no other: else there would be one more for each who
	// waits, again and again. There a dial ends that has been slow and for nobody at three looks, one each slowDial, or at four as one of the
	// keptSlow oldest. As many of the oldest as there are who wait are for somebody.
	slowDial = time.Second
	// longDial is the least after which a dial takes longer by far than the last one did.
	longDial = 50 * time.Millisecond
	// manyRefused is after how many dials in a row that were refused, or as many as there are places, whoever waits with a limit is told though
	// others are under way that are slow: each would have met the same in a place of its own.
	manyRefused = 8
	// keptSlow lets callers of whom each has less time than opening takes have a connection in the end, where that takes up to 4 s.
	keptSlow = 2
)

// supply is the dials. Pool.mu guards it.
type supply[T any] struct {
	dials    []*dialing[T] // those that were begun for a caller
	slow     int           // how many of them have taken longer than slowDial
	ahead    int           // those of the upkeep: no caller's context is in them, so none is left to hope for one
	failures int           // in a row
	err      error         // the last one's
	resume   time.Time     // when the next dial may begin, after one that failed
	timer    *time.Timer
	due      time.Time // when the timer goes off

	settling []time.Time // since when things are being made fit for their next user, the first one first; see Settling

	good time.Time     // when the last dial was begun that succeeded
	took time.Duration // how long it took; 0: none has
	most int           // who have waited at a time since then
}

// underWay is how many dials there are.
func (s *supply[T]) underWay() int { return len(s.dials) + s.ahead }

// hopeful is how many of them whoever waits may hope for.
func (s *supply[T]) hopeful() int { return len(s.dials) - s.slow }

// nobodys is how many of those were begun for somebody who has gone, but for those that a later one has overtaken.
func (s *supply[T]) nobodys() (n int) {
	for _, d := range s.dials {
		if !d.slow && d.asker.gone && !s.overtaken(d) {
			n++
		}
	}
	return n
}

// overtaken says that one that was begun later has succeeded before it.
func (s *supply[T]) overtaken(d *dialing[T]) bool { return d.began.Before(s.good) }

// late is after how long a dial has taken longer by far than the last that succeeded.
func (s *supply[T]) late() time.Duration {
	if s.took == 0 {
		return slowDial
	}
	return min(max(4*s.took, longDial), slowDial)
}

// lateIn is in what time each will be late: one that is begun then may be quicker, after packets were lost.
func (s *supply[T]) lateIn() time.Duration {
	var youngest time.Time
	for _, d := range s.dials {
		if d.began.After(youngest) && !s.overtaken(d) {
			youngest = d.began
		}
	}
	return s.late() - time.Since(youngest)
}

// trying says that there is a dial that is neither slow nor overtaken.
func (s *supply[T]) trying() bool {
	return slices.ContainsFunc(s.dials, func(d *dialing[T]) bool { return !d.slow && !s.overtaken(d) })
}

// settlingSoon is how many whoever waits may hope for of those that are being made fit, and in how long the first of these is late, as a dial would
// be.
func (s *supply[T]) settlingSoon() (n int, lateIn time.Duration) {
	for i, since := range s.settling {
		if lateIn = s.late() - time.Since(since); lateIn > 0 {
			return len(s.settling) - i, lateIn
		}
	}
	return 0, 0
}

// patience is for how long somebody who waits hopes for these before there is a dial: about as long as that takes, so that nobody is served later by
// more than that, and for half of its time. That is half of Timeout too, which ends no wait for a dial.
func (s *supply[T]) patience(w *waiter[T], timeout time.Duration) time.Duration {
	most := longDial
	if s.took > 0 {
		most = min(s.took, slowDial)
	}
	if timeout >= 0 {
		most = min(most, timeout/2)
	}
	if !w.until.IsZero() { // it may be the last dial that was slow, and the next one not
		most = min(most, w.until.Sub(w.since)/2)
	}
	return most
}

// hopesFor is for how long somebody may hope for what isn't its own dial, since it began to wait: for no longer than most, and while there is time
// enough for a dial of its own that takes half as long again as the last.
func (s *supply[T]) hopesFor(w *waiter[T], most time.Duration) time.Duration {
	hope := most - time.Since(w.since)
	if spare := time.Until(w.until) - s.took; !w.until.IsZero() && spare > 0 {
		hope = min(hope, spare-s.took/2)
	}
	return hope
}

// dialing is a dial that was begun for somebody. Pool.mu guards it.
type dialing[T any] struct {
	asker  *waiter[T]
	began  time.Time
	cancel context.CancelFunc
	timer  *time.Timer
	alone  int  // for how many times slowDial it has been slow and for nobody
	slow   bool // has taken longer than slowDial
	ended  bool // by itself
	unused bool // ended by the pool
}

// dialLocked begins dials until there are as many under way as there are who wait, as far as there is room. Where there is a limit it doesn't matter
// whose a dial was when it began, and what is being made fit counts for a while as well; else everybody has one of its own, or one whose asker has
// gone. After one that has failed there is one at a time, but for the slow ones.
func (p *Pool[T]) dialLocked() {
	if p.closed || !p.paused.IsZero() {
		return
	}
	s := &p.supply
	limited, hopes, lateIn := p.limit >= 0, 0, slowDial
	w := p.queue.oldest
	if limited {
		w = p.queue.at(s.hopeful())
		hopes, lateIn = s.settlingSoon()
	} else if w != nil {
		s.most = max(s.most, p.queue.len)
		hopes, lateIn = s.nobodys(), s.lateIn()
	}
	for ; w != nil && (!limited || p.places < p.limit); w = w.newer {
		if !limited && w.dials > 0 {
			continue
		}
		most := slowDial
		if limited {
			most = s.patience(w, p.opts.Timeout)
		}
		wait, hope := time.Until(s.resume), min(lateIn, s.hopesFor(w, most))
		switch {
		case hopes > 0 && hope > 0: // for a while: what it hopes for may go to others, again and again
			hopes--
			p.dialLaterLocked(hope)
			continue
		case wait > 0:
			p.dialLaterLocked(wait)
			return
		case limited && s.failures > 0 && s.hopeful() > 0: // one is trying
			return
		case !limited && s.failures > 0 && s.trying() && lateIn > 0:
			p.dialLaterLocked(lateIn)
			return
		}
		p.beginLocked(w)
		if !limited {
			lateIn = s.lateIn()
		}
	}
}

// beginLocked begins a dial for somebody who waits. It doesn't end with whose it is.
func (p *Pool[T]) beginLocked(w *waiter[T]) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.ctx))
	d := &dialing[T]{asker: w, began: time.Now(), cancel: cancel}
	d.timer = time.AfterFunc(slowDial, func() { p.slowDial(d) })
	w.dials++
	p.places++
	if p.limit < 0 {
		p.supply.trim(p.queue.len)
	}
	p.supply.dials = append(p.supply.dials, d)
	go func() {
		defer cancel()
		defer context.AfterFunc(p.ctx, cancel)()
		p.dial(ctx, w.until, d)
	}()
}

// trim ends dials whose askers have gone until there are no more than have waited at a time: those first that were overtaken, then the youngest; but
// none that one of those may hope for who wait now.
func (s *supply[T]) trim(waiting int) {
	var gone []*dialing[T]
	for _, d := range s.dials {
		switch {
		case !d.asker.gone, d.unused:
		case waiting > 0 && !d.slow && !s.overtaken(d):
			waiting--
		default:
			gone = append(gone, d)
		}
	}
	slices.SortStableFunc(gone, func(a, b *dialing[T]) int {
		switch overA, overB := s.overtaken(a), s.overtaken(b); {
		case overA == overB:
			return a.began.Compare(b.began)
		case overB:
			return -1
		default:
			return 1
		}
	})
	for _, d := range gone[min(len(gone), max(s.most, keptSlow)):] {
		s.isSlow(d)
		d.unused = true
		d.cancel()
	}
}

// isSlow: nobody hopes for it any more.
func (s *supply[T]) isSlow(d *dialing[T]) {
	if !d.slow {
		d.slow = true
		s.slow++
	}
}

// dialLaterLocked looks again in that time, or before.
func (p *Pool[T]) dialLaterLocked(wait time.Duration) {
	s, due := &p.supply, time.Now().Add(wait)
	if s.timer != nil && !due.Before(s.due) {
		return
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.due = due
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if s.timer == timer {
			s.timer = nil
		}
		p.dialLocked()
	})
	s.timer = timer
}

// dial opens a thing for whoever it will be; d is nil when nobody waited for it when it was begun.
func (p *Pool[T]) dial(ctx context.Context, until time.Time, d *dialing[T]) (ok bool) {
	thing, err := p.things.Dial(ctx, until)
	if err != nil {
		p.dialFailed(err, d)
		return false
	}
	kept, why := p.dialled(thing, d)
	if !kept {
		p.things.Close(thing, why, p.Gone)
	}
	return kept
}

// slowDial looks at a dial that is slow.
func (p *Pool[T]) slowDial(d *dialing[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.ended {
		return
	}
	p.supply.isSlow(d)
	if p.limit < 0 {
		if d.unused = d.unused || p.forNobodyLocked(d); d.unused {
			d.cancel()
		} else {
			d.timer.Reset(slowDial)
		}
	}
	p.dialLocked()
	p.dismissLocked(ErrTimeout)
}

// forNobodyLocked says of a slow dial, at each look, that neither whoever waits nor whoever calls next is to have it.
func (p *Pool[T]) forNobodyLocked(d *dialing[T]) bool {
	if !d.asker.gone {
		return false
	}
	older := 0
	for _, other := range p.supply.dials {
		if other == d {
			break
		}
		if other.slow && other.asker.gone {
			older++
		}
	}
	if older >= p.queue.len {
		d.alone++
	}
	return d.alone > 3 || d.alone > 2 && older >= keptSlow
}

// end takes a dial off the books.
func (s *supply[T]) end(d *dialing[T]) {
	if d == nil {
		s.ahead--
		return
	}
	d.ended = true
	d.timer.Stop()
	d.asker.dials--
	if d.slow {
		s.slow--
	}
	i := slices.Index(s.dials, d)
	s.dials = slices.Delete(s.dials, i, i+1)
}

// succeeded: what others have met before counts no more.
func (s *supply[T]) succeeded(d *dialing[T]) {
	s.failures, s.err, s.resume, s.most = 0, nil, time.Time{}, 0
	if d != nil && !s.overtaken(d) {
		s.good, s.took = d.began, time.Since(d.began)
	}
}

// dialled gives what a dial has brought to whoever waits, or keeps it.
func (p *Pool[T]) dialled(thing T, d *dialing[T]) (kept bool, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.end(d)
	p.supply.succeeded(d)
	defer p.dismissLocked(ErrTimeout) // those who have waited beyond their time, for this one
	defer p.dialLocked()              // those that waited for whether it succeeds
	if p.closed {
		return false, ErrClosed
	}
	if p.limit < 0 && d != nil && !d.asker.gone && d.asker.ctx.Err() == nil && p.paused.IsZero() {
		p.serveOneLocked(d.asker, thing, true) // nothing is scarce that an order could be wanted for
		return true, nil
	}
	if p.paused.IsZero() && p.serveLocked(thing, true) {
		return true, nil
	}
	if d != nil {
		p.figures.Orphaned++
	}
	if p.limit >= 0 && p.places > p.limit || !p.keepLocked(thing, p.opts.Now(), true) {
		return false, ErrSurplus
	}
	return true, nil
}

// dialFailed takes a dial's error in. Of one that nobody has asked for, or that nobody waits for any more, nobody is told: the upkeep tries again in
// its own time.
func (p *Pool[T]) dialFailed(err error, d *dialing[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.end(d)
	p.places--
	why := ErrTimeout
	if d != nil && !d.unused && !p.closed && p.learnLocked(err, d) {
		why = err
	}
	if d != nil && d.unused {
		p.dialLocked() // for who hoped for it
	}
	p.dismissLocked(why)
	p.dialLocked()
}

// learnLocked tells a dial's error to those whom nothing but a dial can help, and makes the next dial wait from the second failure in a row on:
//   - to one at once: without a limit to whoever's own dial that was, as a bare driver does; else to the oldest, if no other dial is under
//     way, or if this one was slow, as those that are under way may be.
//   - from the second failure in a row on to all, if no other dial is under way.
//   - to all who have waited since before it began, as they have met what it has: without a limit from the second failure in a row on, if it was
//     slow or those under way are; else after manyRefused, if those are and it wasn't. Slow ones may yet succeed, and serve many where there
//     is a limit.
//
// An error of a dial that was begun before one that has succeeded is no news, but to its asker.
func (p *Pool[T]) learnLocked(err error, d *dialing[T]) (news bool) {
	s := &p.supply
	news = !s.overtaken(d)
	if news {
		s.failures++
		s.err = err
		if s.failures > 1 {
			pause := min(longestPause, firstPause<<min(s.failures-2, 8))
			s.resume = time.Now().Add(pause - rand.N(pause/10))
		}
	}
	var told *waiter[T]
	switch {
	case p.limit < 0 && !d.asker.gone:
		told = d.asker
	case p.limit >= 0 && news && (s.underWay() == 0 || d.slow):
		told = p.queue.oldest
	}
	if told != nil && (!p.lentLocked() || told.overdue()) {
		p.failLocked(told, err)
	}
	switch hopes := s.hopeful() + s.ahead; {
	case !news || p.lentLocked():
	case p.helplessLocked():
		p.failAllLocked(err, time.Now())
	case d.slow && p.limit < 0 && s.failures > 1, !d.slow && hopes == 0 && s.failures > max(1, min(p.limit, manyRefused)):
		p.failAllLocked(err, d.began)
	}
	return news
}

// lentLocked says that something is there that could be given back.
func (p *Pool[T]) lentLocked() bool { return p.places > len(p.free)+p.supply.underWay() }

// helplessLocked: the last dials failed a moment ago, none is under way, and nothing is there that could be given back. Without a limit the slow ones
// are their askers' affair.
func (p *Pool[T]) helplessLocked() bool {
	s := &p.supply
	hopes := s.underWay()
	if p.limit < 0 {
		hopes -= s.slow
	}
	return s.err != nil && hopes == 0 && !p.lentLocked() && time.Now().Before(s.resume)
}

// LastError is what the last dial failed with; nil once one has succeeded.
func (p *Pool[T]) LastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.supply.err
}
