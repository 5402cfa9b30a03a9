package pool

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Errors of Acquire, besides the context's and those of dials.
var (
	// ErrClosed: the pool is closed.
	ErrClosed = errors.New("pool is closed")
	// ErrTimeout: the pool's timeout has passed.
	ErrTimeout = errors.New("pool timeout")
	// ErrSilent, in an error of Ready's: the other side didn't answer. Others that have been free for as long may be as silent.
	ErrSilent = errors.New("no answer")
)

// Things is what the pool needs to know of what it lends. But for Stale its methods are called without a lock held.
type Things[T any] interface {
	// Dial opens one. Its context ends when the pool is closed. Until is when whoever it is begun for gives up; zero: never.
	Dial(ctx context.Context, until time.Time) (T, error)
	// Ready makes one that was free fit for its next user, at the time of Options.Now. With an error it is closed.
	Ready(ctx context.Context, thing T, at time.Duration) error
	// Stale says why one that is free isn't to be used again; nil if it is. It is called with the pool's lock held: it must be quick.
	Stale(thing T, at time.Duration) error
	// Close closes one, because of an error of Ready's or Stale's, a Reason, or ErrClosed. It calls done once that is over, which may be
	// later.
	Close(thing T, why error, done func())
}

// Reason is why a thing is closed that isn't broken.
type Reason string

// Reasons besides ErrClosed and those of Stale.
const (
	ErrIdle    Reason = "idle"    // free for too long
	ErrSurplus Reason = "surplus" // more than are kept
)

func (r Reason) Error() string { return string(r) }

// Options of a pool.
type Options struct {
	// Size is how many are kept when they are free.
	Size int
	// MaxOverflow is how many more there may be; negative: any number.
	MaxOverflow int
	// Timeout is how long Acquire waits. 0: not at all, but for a dial that it may begin. Negative: as long as its context.
	Timeout time.Duration
	// MinIdle are dialled ahead and kept free.
	MinIdle int
	// IdleTimeout is how long one stays free beyond MinIdle. 0: for ever.
	IdleTimeout time.Duration
	// OrphanTimeout is how long what a dial brings is kept for the next caller when whoever it was begun for has gone and there is no
	// Size that keeps it.
	OrphanTimeout time.Duration
	// Period is how often the free ones are looked over; 0: only for IdleTimeout and MinIdle.
	Period time.Duration
	// Now is the clock.
	Now func() time.Duration
	// Who says who is about to wait, for Waiters. It is called on the goroutine of Acquire, with its context and without a lock held;
	// nil: Waiters doesn't know.
	Who func(ctx context.Context) any
}

// Pool lends things.
type Pool[T any] struct { // More than 15 fields: what the lock guards stands in one place.
	things Things[T]
	opts   Options
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	upkeep upkeep

	// mu guards what follows. It is held for short, and nothing of somebody else's is called meanwhile.
	mu      sync.Mutex
	size    int
	limit   int // of places; negative: none
	closed  bool
	paused  time.Time     // since when nothing is lent; zero: it is
	drained chan struct{} // closed when nothing is lent any more, for Pause; nil if nobody waits for that

	queue   queue[T]
	free    []freed[T] // the most recently used last; empty while somebody waits, unless paused
	places  int        // things that there are, free or not, those being dialled and closed included
	lent    int
	supply  supply[T]
	figures Figures
}

type freed[T any] struct {
	thing T
	since time.Duration
}

// Figures are a pool's counts.
type Figures struct {
	Waiting     int           // in the queue now
	Standing    time.Duration // for how long the queue has stood; 0: it doesn't
	Dialling    int           // dials under way
	Paused      time.Duration // for how long; 0: it isn't
	NewestFirst int64         // served out of order, ever
	Orphaned    int64         // dials whose caller had gone when they succeeded, ever
}

// New makes a pool. Nothing runs before the first Acquire.
func New[T any](things Things[T], opts Options) *Pool[T] {
	p := &Pool[T]{things: things, opts: opts}
	p.setLimitsLocked(opts.Size, opts.MaxOverflow)
	p.ctx, p.stop = context.WithCancel(context.Background())
	p.upkeep.init(opts)
	return p
}

func (p *Pool[T]) setLimitsLocked(size, maxOverflow int) {
	p.size, p.limit = size, -1
	if maxOverflow >= 0 {
		p.limit = size + maxOverflow
	}
}

// TryAcquire lends a thing that is free; false if there is none that can be made ready.
func (p *Pool[T]) TryAcquire(ctx context.Context) (thing T, ok bool) {
	p.upkeep.start(p)
	for {
		p.mu.Lock()
		thing, ok = p.takeLocked()
		p.mu.Unlock()
		if !ok {
			return thing, false
		}
		switch why := p.ready(ctx, thing); {
		case why == nil:
			return thing, true
		case errors.Is(why, ErrSilent):
			p.sift()
			return thing, false
		case ctx.Err() != nil:
			return thing, false
		}
	}
}

// Room says that Acquire would have one at once, or soon begin a dial to wait for.
func (p *Pool[T]) Room() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused.IsZero() && (len(p.free) > 0 || p.queue.len == 0 && (p.limit < 0 || p.places < p.limit))
}

// Acquire lends a thing, after having waited for it. Fresh says that it was dialled and has had no user.
func (p *Pool[T]) Acquire(ctx context.Context) (thing T, waited time.Duration, fresh bool, err error) {
	p.upkeep.start(p)
	var began time.Time // the first wait
	for {
		var since time.Duration
		thing, since, fresh, err = p.next(ctx, began)
		if waited += since; err != nil {
			return thing, waited, false, err
		}
		if fresh {
			return thing, waited, true, nil
		}
		why := p.ready(ctx, thing)
		if why == nil {
			return thing, waited, false, nil
		}
		if errors.Is(why, ErrSilent) {
			p.sift()
		}
		if err := ctx.Err(); err != nil {
			return thing, waited, false, err
		}
		if began.IsZero() {
			began = time.Now().Add(-waited)
		}
	}
}

// ready makes a thing ready that is lent already, and closes it when that fails or panics.
func (p *Pool[T]) ready(ctx context.Context, thing T) (err error) {
	err = errPanicked
	defer func() {
		if err != nil {
			p.Discard(thing, err)
		}
	}()
	return p.things.Ready(ctx, thing, p.opts.Now())
}

// errPanicked closes a thing whose Ready has panicked.
var errPanicked = errors.New("panicked")

// next lends what is free, else waits.
func (p *Pool[T]) next(ctx context.Context, began time.Time) (thing T, waited time.Duration, fresh bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return thing, 0, false, ErrClosed
	}
	if thing, ok := p.takeLocked(); ok {
		p.mu.Unlock()
		return thing, 0, false, nil
	}
	return p.waitLocked(ctx, began)
}

// takeLocked lends what was used most recently of what is free.
func (p *Pool[T]) takeLocked() (thing T, ok bool) {
	last := len(p.free) - 1
	if last < 0 || p.closed || !p.paused.IsZero() {
		return thing, false
	}
	p.lent++
	return p.popLocked(last), true
}

func (p *Pool[T]) popLocked(i int) T {
	thing, last := p.free[i].thing, len(p.free)-1
	if i < last {
		copy(p.free[i:], p.free[i+1:])
	}
	p.free[last] = freed[T]{}
	p.free = p.free[:last]
	return thing
}

// Borrow lends a free thing that is meant, for a moment and out of turn; false if there is none.
func (p *Pool[T]) Borrow(meant func(T) bool) (thing T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.free) - 1; i >= 0; i-- {
		if meant(p.free[i].thing) {
			p.lent++
			return p.popLocked(i), true
		}
	}
	return thing, false
}

// Release takes a thing back. It goes to whoever waits, else it is free; kept is false when it is neither, as the pool is closed or
// has enough: then it counts as being closed, and Gone is to be called when it is.
func (p *Pool[T]) Release(thing T, at time.Duration) (kept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.returnedLocked()
	return p.putLocked(thing, at, false)
}

// returnedLocked: one less is lent.
func (p *Pool[T]) returnedLocked() {
	p.lent--
	p.drainedLocked()
}

func (p *Pool[T]) drainedLocked() {
	if p.lent == 0 && p.drained != nil {
		close(p.drained)
		p.drained = nil
	}
}

// putLocked gives a thing that is nobody's to whoever waits, or keeps it. Fresh says that it has had no user.
func (p *Pool[T]) putLocked(thing T, at time.Duration, fresh bool) (kept bool) {
	others := p.lent + len(p.free) + p.supply.underWay() // without those that are being closed
	switch {
	case p.closed, p.limit >= 0 && others >= p.limit:
		return false
	case p.paused.IsZero() && p.serveLocked(thing, fresh):
		return true
	default:
		return p.keepLocked(thing, at, fresh)
	}
}

// keepLocked keeps a thing that nobody waits for, if there are not as many already. A fresh one is kept for OrphanTimeout all the same.
func (p *Pool[T]) keepLocked(thing T, since time.Duration, fresh bool) (kept bool) {
	if len(p.free) >= p.size {
		if !fresh || p.opts.OrphanTimeout == 0 {
			return false
		}
		time.AfterFunc(p.opts.OrphanTimeout, p.Sweep)
	}
	p.free = append(p.free, freed[T]{thing, since})
	return true
}

// Discard closes a thing that is lent.
func (p *Pool[T]) Discard(thing T, why error) {
	p.Taken()
	p.things.Close(thing, why, p.Gone)
}

// Taken says that a thing that was lent is being closed by somebody else, who calls Gone.
func (p *Pool[T]) Taken() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.returnedLocked()
}

// Settling says that a thing that is lent is being made fit for its next user: whoever waits hopes for it for a while before there is a dial. It ends
// with Settled, after Release or Taken.
func (p *Pool[T]) Settling() (since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	since = time.Now()
	p.supply.settling = append(p.supply.settling, since)
	return since
}

// Settled ends what began with Settling then.
func (p *Pool[T]) Settled(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.supply.settling, since)
	p.supply.settling = slices.Delete(p.supply.settling, i, i+1)
	p.dialLocked()
}

// Gone says that a thing is closed: there is room for another.
func (p *Pool[T]) Gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.places--
	p.dialLocked()
}

// Detach makes a thing that is lent its user's for good: it counts no more.
func (p *Pool[T]) Detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.returnedLocked()
	p.places--
	p.dialLocked()
}

// Figures are the pool's counts now.
func (p *Pool[T]) Figures() Figures {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.figures
	f.Waiting, f.Dialling = p.queue.len, p.supply.underWay()
	if !p.queue.stands.IsZero() {
		f.Standing = now.Sub(p.queue.stands)
	}
	if !p.paused.IsZero() {
		f.Paused = now.Sub(p.paused)
	}
	return f
}

// Limits are Size and MaxOverflow as they are now.
func (p *Pool[T]) Limits() (size, maxOverflow int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit < 0 {
		return p.size, -1
	}
	return p.size, p.limit - p.size
}

// Resize changes the limits at once: surplus free things are closed, those that are lent when they are given back.
func (p *Pool[T]) Resize(size, maxOverflow int) {
	p.mu.Lock()
	p.setLimitsLocked(size, maxOverflow)
	var surplus []T
	for len(p.free) > p.size || p.limit >= 0 && p.places-len(surplus) > p.limit && len(p.free) > 0 {
		surplus = append(surplus, p.popLocked(0))
	}
	p.dialLocked()
	p.mu.Unlock()
	for _, thing := range surplus {
		p.things.Close(thing, ErrSurplus, p.Gone)
	}
}

// Pause lends nothing more until Resume. What it returns is closed when all that is lent was given back. Who waits in Acquire waits on,
// within its own limits.
func (p *Pool[T]) Pause() (drained <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused.IsZero() {
		p.paused = time.Now()
	}
	if p.drained == nil {
		p.drained = make(chan struct{})
	}
	drained = p.drained
	p.drainedLocked()
	return drained
}

// Resume lends again, first to those who have waited.
func (p *Pool[T]) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = time.Time{}
	for last := len(p.free) - 1; last >= 0 && p.serveLocked(p.free[last].thing, false); last-- {
		p.popLocked(last)
	}
	p.dialLocked()
}

// Close closes what is free, ends dials, and wakes those who wait with ErrClosed. What is lent is closed when it is given back. It
// returns when what was free is closed.
func (p *Pool[T]) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.closed = true
	free := p.free
	p.free = nil
	for p.queue.oldest != nil {
		p.failLocked(p.queue.oldest, ErrClosed)
	}
	for _, t := range []*time.Timer{p.queue.late, p.supply.timer} {
		if t != nil {
			t.Stop()
		}
	}
	p.mu.Unlock()
	p.stop()
	var closing sync.WaitGroup
	for _, f := range free {
		closing.Add(1)
		go p.things.Close(f.thing, ErrClosed, func() { p.Gone(); closing.Done() })
	}
	p.upkeep.finish()
	closing.Wait()
}
