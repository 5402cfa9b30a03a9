package pool

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	leastPeriod = 10 * time.Millisecond
	mostPeriod  = 10 * time.Second
	// idlePeriod is how soon a dial ahead that failed is tried again.
	idlePeriod = time.Second
)

// upkeep is the goroutine that looks after what is free. It runs from the first Acquire on, if there is such work.
type upkeep struct {
	period time.Duration // 0: nothing to do
	once   sync.Once
	kick   chan struct{}

	mu   sync.Mutex
	done chan struct{} // closed when the goroutine has ended; nil if it was never started. mu guards it
}

func (u *upkeep) init(opts Options) {
	u.kick = make(chan struct{}, 1)
	u.period = opts.Period
	shorter := func(d time.Duration) {
		if u.period == 0 || d < u.period {
			u.period = d
		}
	}
	if opts.IdleTimeout > 0 {
		shorter(opts.IdleTimeout / 10)
	}
	if opts.MinIdle > 0 {
		shorter(idlePeriod)
	}
	if u.period > 0 {
		u.period = min(max(u.period, leastPeriod), mostPeriod)
	}
}

func (u *upkeep) start(p interface{ tend() }) {
	if u.period == 0 {
		return
	}
	u.once.Do(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		done := make(chan struct{})
		u.done = done
		go func() {
			defer close(done)
			p.tend()
		}()
	})
}

func (u *upkeep) finish() {
	u.once.Do(func() {}) // never, from now on
	u.mu.Lock()
	done := u.done
	u.mu.Unlock()
	if done != nil {
		<-done
	}
}

// Sweep closes what is free and isn't to be used again, and has the upkeep look.
func (p *Pool[T]) Sweep() {
	p.sweep(p.opts.Now())
	select {
	case p.upkeep.kick <- struct{}{}:
	default:
	}
}

func (p *Pool[T]) tend() {
	tick := time.NewTicker(p.upkeep.period)
	defer tick.Stop()
	for {
		p.sweep(p.opts.Now())
		for p.wanting() && p.dial(p.ctx, time.Time{}, nil) {
		}
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		case <-p.upkeep.kick:
		}
	}
}

// wanting takes the place of a thing to be dialled ahead, if one is wanted: beside free ones, so that it is Size that limits it.
func (p *Pool[T]) wanting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.paused.IsZero() || len(p.free)+p.supply.underWay() >= p.opts.MinIdle || p.places >= p.size ||
		time.Now().Before(p.supply.resume) {
		return false
	}
	p.places++
	p.supply.ahead++
	return true
}

// sweep closes what is stale or has been free for too long, the longest free first.
func (p *Pool[T]) sweep(at time.Duration) {
	for i := 0; ; i++ {
		thing, why, ok := p.takeStale(i, at)
		if !ok {
			return
		}
		if why != nil {
			p.things.Close(thing, why, p.Gone)
			i--
		}
	}
}

// takeStale looks at the i-th free thing, and takes it if it is to be closed.
func (p *Pool[T]) takeStale(i int, at time.Duration) (thing T, why error, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(p.free) {
		return thing, nil, false
	}
	f := p.free[i]
	if why = p.things.Stale(f.thing, at); why == nil && p.opts.IdleTimeout > 0 && at-f.since >= p.opts.IdleTimeout && len(p.free) > p.opts.MinIdle {
		why = ErrIdle
	}
	if why == nil && p.opts.OrphanTimeout > 0 && at-f.since >= p.opts.OrphanTimeout {
		why = ErrIdle
	}
	if why != nil {
		p.popLocked(i)
	}
	return f.thing, why, true
}

// contained is Ready on a goroutine of ours, where a panic would end the program.
func (p *Pool[T]) contained(thing T) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanicked, v, debug.Stack())
		}
	}()
	return p.things.Ready(p.ctx, thing, p.opts.Now())
}

// sift sorts out what is free and may be as silent as one that was just found: nobody should have to find out one after the other.
// Each is asked, and lent again if it answers.
func (p *Pool[T]) sift() {
	p.mu.Lock()
	free := p.free
	p.free = nil
	p.lent += len(free)
	p.mu.Unlock()
	for _, f := range free {
		go func() {
			if why := p.contained(f.thing); why != nil {
				p.Discard(f.thing, why)
			} else if !p.Release(f.thing, p.opts.Now()) {
				p.things.Close(f.thing, ErrSurplus, p.Gone)
			}
		}()
	}
}
