package pool

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// After two dials in a row that failed the next waits for firstPause, then for twice as long each time, up to longestPause, less a
	// random tenth. That is short enough for the first success to come within 50 ms of a server's return, and asks a server that
	// refuses 24 times a second at most, whatever the number of callers.
	firstPause   = 5 * time.Millisecond
	longestPause = 45 * time.Millisecond

	// slowDial is after how long a dial doesn't count any more as one that whoever waits may hope for: another one is begun beside it.
	slowDial = time.Second
)

// supply is the dials. Pool.mu guards it.
type supply struct {
	dialling int
	slow     int // of them, those that were begun for a caller and have taken longer than slowDial
	ahead    int // of them, those of the upkeep: no caller's context is in them, so none is left to hope for one
	failures int // in a row
	err      error
	resume   time.Time // when the next dial may begin, after one that failed
	timer    *time.Timer
}

// dialLocked begins dials until there are as many under way as there are who wait, as far as there is room.
func (p *Pool[T]) dialLocked() {
	s := &p.supply
	for p.paused.IsZero() && !p.closed && s.dialling-s.slow-s.ahead < p.queue.len && (p.limit < 0 || p.places < p.limit) {
		if wait := time.Until(s.resume); wait > 0 {
			p.dialLaterLocked(wait)
			return
		}
		if s.failures > 0 && s.dialling > s.slow+s.ahead {
			return // one is trying
		}
		w := p.queue.at(s.dialling - s.slow - s.ahead)
		p.beginLocked()
		go p.dial(context.WithoutCancel(w.ctx), w.until, true)
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

// dial opens a thing for whoever it will be; asked says that somebody waited for it when it was begun.
func (p *Pool[T]) dial(ctx context.Context, until time.Time, asked bool) (ok bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	over := func() (slow bool) { return false }
	if asked {
		over = p.timed()
	}
	thing, err := p.things.Dial(ctx, until)
	slow := over()
	switch {
	case err != nil && asked:
		p.dialFailed(err, slow)
		return false
	case err != nil:
		p.aheadFailed()
		return false
	}
	kept, why := p.dialled(thing, asked)
	if !kept {
		p.things.Close(thing, why, p.Gone)
	}
	return kept
}

// timed counts a dial as slow once it is, until over, which tells whether it was.
func (p *Pool[T]) timed() (over func() bool) {
	slow, ended := false, false
	late := time.AfterFunc(slowDial, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !ended {
			slow = true
			p.supply.slow++
			p.dialLocked()
		}
	})
	return func() bool {
		late.Stop()
		p.mu.Lock()
		defer p.mu.Unlock()
		ended = true
		if slow {
			p.supply.slow--
		}
		return slow
	}
}

// dialled gives what a dial has brought to whoever waits, or keeps it.
func (p *Pool[T]) dialled(thing T, asked bool) (kept bool, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.dialling--
	if !asked {
		p.supply.ahead--
	}
	p.supply.failures, p.supply.err, p.supply.resume = 0, nil, time.Time{}
	defer p.dismissLocked(ErrTimeout) // those who have waited beyond their time, for this one
	defer p.dialLocked()              // those that waited for whether it succeeds
	if p.closed {
		return false, ErrClosed
	}
	if p.paused.IsZero() && p.serveLocked(thing, true) {
		return true, nil
	}
	if asked {
		p.figures.Orphaned++
	}
	switch {
	case p.limit >= 0 && p.places > p.limit, len(p.free) >= p.size && p.opts.OrphanTimeout == 0:
		return false, ErrSurplus
	case len(p.free) >= p.size:
		time.AfterFunc(p.opts.OrphanTimeout, p.Sweep)
	}
	p.free = append(p.free, freed[T]{thing, p.opts.Now()})
	return true, nil
}

// aheadFailed: nobody is told, as nobody has asked; the upkeep tries again in its own time.
func (p *Pool[T]) aheadFailed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.supply.dialling--
	p.supply.ahead--
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
