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
	// nothing limits their number that is so only once whoever it was begun for has gone: else there would be one more for each who
	// waits, again and again. There a dial ends that has been slow and for nobody at
	// three looks, one each slowDial, but for as many of the oldest as there are who wait.
	slowDial = time.Second
)

// supply is the dials. Pool.mu guards it.
type supply[T any] struct {
	dialling int
	slow     []*dialing[T] // of them, those that were begun for a caller and have taken longer than slowDial
	ahead    int           // of them, those of the upkeep: no caller's context is in them, so none is left to hope for one
	failures int           // in a row
	err      error
	resume   time.Time // when the next dial may begin, after one that failed
	timer    *time.Timer
}

// dialing is a dial that was begun for somebody. Pool.mu guards it.
type dialing[T any] struct {
	asker  *waiter[T]
	cancel context.CancelFunc
	timer  *time.Timer
	alone  int  // for how many times slowDial it has been slow and for nobody
	ended  bool // by itself
	unused bool // ended by the pool
}

// hopelessLocked is how many of the dials under way are none to hope for.
func (p *Pool[T]) hopelessLocked() int {
	s := &p.supply
	if p.limit >= 0 {
		return s.ahead + len(s.slow)
	}
	n := s.ahead
	for _, d := range s.slow {
		if d.asker.gone {
			n++
		}
	}
	return n
}

// wantedLocked says of a slow dial for nobody that whoever waits would be glad of it: it is one of the oldest.
func (p *Pool[T]) wantedLocked(d *dialing[T]) bool {
	older := 0
	for _, other := range p.supply.slow {
		switch {
		case other == d:
			return older < p.queue.len
		case other.asker.gone:
			older++
		}
	}
	return false
}

// dialLocked begins dials until there are as many under way as there are who wait, as far as there is room.
func (p *Pool[T]) dialLocked() {
	s := &p.supply
	hopeless := p.hopelessLocked()
	for p.paused.IsZero() && !p.closed && s.dialling-hopeless < p.queue.len && (p.limit < 0 || p.places < p.limit) {
		if wait := time.Until(s.resume); wait > 0 {
			p.dialLaterLocked(wait)
			return
		}
		if s.failures > 0 && s.dialling > hopeless {
			return // one is trying
		}
		w := p.queue.at(s.dialling - hopeless)
		p.beginLocked()
		go p.dial(context.WithoutCancel(w.ctx), w.until, w)
	}
}

func (p *Pool[T]) beginLocked() {
	p.places++
	p.supply.dialling++
}

func (p *Pool[T]) dialLaterLocked(wait time.Duration) {
	if p.supply.timer == nil {
		p.supply.timer = time.AfterFunc(wait, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.supply.timer = nil
			p.dialLocked()
		})
	}
}

// dial opens a thing for whoever it will be; asker, if not nil, waited for it when it was begun.
func (p *Pool[T]) dial(ctx context.Context, until time.Time, asker *waiter[T]) (ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	d := &dialing[T]{asker: asker, cancel: cancel}
	if asker != nil {
		p.watchDial(d)
	}
	thing, err := p.things.Dial(ctx, until)
	slow := p.dialEnded(d)
	switch {
	case err != nil && asker != nil && !d.unused:
		p.dialFailed(err, slow)
		return false
	case err != nil:
		p.nobodysFailed(asker == nil)
		return false
	}
	kept, why := p.dialled(thing, asker)
	if !kept {
		p.things.Close(thing, why, p.Gone)
	}
	return kept
}

// watchDial has a dial looked at each time that slowDial has passed.
func (p *Pool[T]) watchDial(d *dialing[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.timer = time.AfterFunc(slowDial, func() { p.slowDial(d) })
}

// slowDial looks at a dial that is slow.
func (p *Pool[T]) slowDial(d *dialing[T]) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.ended {
		return
	}
	s := &p.supply
	if !slices.Contains(s.slow, d) {
		s.slow = append(s.slow, d)
	}
	if p.limit < 0 {
		if d.asker.gone && !p.wantedLocked(d) {
			d.alone++
		}
		if d.unused = d.alone > 2; d.unused {
			d.cancel()
		} else {
			d.timer.Reset(slowDial)
		}
	}
	p.dialLocked()
}

// dialEnded says of a dial that has ended whether it was slow.
func (p *Pool[T]) dialEnded(d *dialing[T]) (slow bool) {
	if d.asker == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	d.ended = true
	d.timer.Stop()
	s := &p.supply
	i := slices.Index(s.slow, d)
	if i >= 0 {
		s.slow = slices.Delete(s.slow, i, i+1)
	}
	return i >= 0
}

// dialled gives what a dial has brought to whoever waits, or keeps it.
func (p *Pool[T]) dialled(thing T, asker *waiter[T]) (kept bool, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.dialling--
	if asker == nil {
		p.supply.ahead--
	}
	p.supply.failures, p.supply.err, p.supply.resume = 0, nil, time.Time{}
	defer p.dismissLocked(ErrTimeout) // those who have waited beyond their time, for this one
	defer p.dialLocked()              // those that waited for whether it succeeds
	if p.closed {
		return false, ErrClosed
	}
	if p.limit < 0 && asker != nil && !asker.gone && asker.ctx.Err() == nil && p.paused.IsZero() {
		p.serveOneLocked(asker, thing, true) // nothing is scarce that an order could be wanted for
		return true, nil
	}
	if p.paused.IsZero() && p.serveLocked(thing, true) {
		return true, nil
	}
	if asker != nil {
		p.figures.Orphaned++
	}
	since := p.opts.Now()
	switch {
	case p.limit >= 0 && p.places > p.limit, len(p.free) >= p.size && p.opts.OrphanTimeout == 0:
		return false, ErrSurplus
	case len(p.free) >= p.size:
		time.AfterFunc(p.opts.OrphanTimeout, p.Sweep)
	}
	p.free = append(p.free, freed[T]{thing, since})
	return true, nil
}

// nobodysFailed: nobody is told, as nobody has asked, or nobody waits for it any more. The upkeep tries again in its own time.
func (p *Pool[T]) nobodysFailed(ahead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.dialling--
	if ahead {
		p.supply.ahead--
	}
	p.places--
	p.dismissLocked(ErrTimeout)
	p.dialLocked()
}

// dialFailed tells one of those whom only a dial could help why there is none; from the second failure in a row on it tells all of
// them, and makes the next dial wait. A slow one tells the oldest even while others are under way: they were begun beside it, will
// take as long, and have others begun beside them.
func (p *Pool[T]) dialFailed(err error, slow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.supply
	s.dialling--
	p.places--
	if p.closed {
		return
	}
	s.failures++
	s.err = err
	if s.failures > 1 {
		pause := min(longestPause, firstPause<<min(s.failures-2, 8))
		s.resume = time.Now().Add(pause - rand.N(pause/10))
	}
	switch {
	case p.helplessLocked():
		p.failAllLocked(err)
	case (s.dialling == 0 || slow) && p.queue.len > 0 && (p.places == len(p.free)+s.dialling || p.queue.oldest.overdue()):
		p.failLocked(p.queue.oldest, err)
	}
	p.dismissLocked(err)
	p.dialLocked()
}

// helplessLocked: the last dials failed a moment ago, none is under way, and nothing is there that could be given back.
func (p *Pool[T]) helplessLocked() bool {
	s := &p.supply
	return s.err != nil && s.dialling == 0 && p.places == len(p.free) && time.Now().Before(s.resume)
}

// LastError is what the last dial failed with; nil once one has succeeded.
func (p *Pool[T]) LastError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.supply.err
}
