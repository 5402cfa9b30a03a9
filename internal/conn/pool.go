package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/pool"
	"github.com/managedpg/managedpg/stats"
)

// Pool lends physical connections.
//
// When the driver governs (Options.Size > 0), lending has the free connections, the queue and the dials: see internal/pool.
//
// When database/sql governs, each physical connection belongs to one logical connection for life. Lending dials it, keeps what a dial
// brings whose caller has gone for the next one, and counts it no more once it has its owner.
type Pool struct {
	// What each checkout looks at stands together.
	governed bool
	trust    time.Duration // a connection that was free for less is lent as it was left
	lastLoss atomic.Int64  // when a connection was last found broken, by clock.Now(), wherever it led
	texts    *texts        // shared with reads
	life     lifetime

	opts    Options
	router  Router
	lending *pool.Pool[*physical]
	reset   atomic.Pointer[pool.Figures] // lending's at the last ResetStats
	open    openConns
	reads   *Pool // for checkouts that only read; nil: there is no such pool

	opener openerDetector
	lacks  lacking
	warned struct { // of what the log is told once, or now and then
		limit, reset sync.Once
		maxIdle      maxIdleClosed
		exhausted    exhaustion
	}

	Recorder stats.Recorder
}

// lifetime is a pool's.
type lifetime struct {
	drains atomic.Uint64   // counts Drain and Close: connections opened before the last one aren't used again
	ctx    context.Context // ends with Close
	end    context.CancelFunc
}

// openConns are a pool's open connections, free or not.
type openConns struct {
	mu  sync.Mutex // guards all. Nothing that could block is done while it is held
	all map[*physical]struct{}

	lastID atomic.Uint64 // of the connection that was opened last; not guarded
}

// lacking is what the base connections opened so far lack, for a logical connection that has none yet.
type lacking struct{ exec, query atomic.Bool }

// orphanLimit is how long a connection waits for the next caller when database/sql governs, and whoever it was dialled for has gone.
const orphanLimit = 5 * time.Second

// New makes a pool.
func New(opts Options, router Router) *Pool {
	p := &Pool{
		opts:     opts,
		governed: opts.Size > 0,
		router:   router,
		texts:    new(texts),
	}
	p.open.all = make(map[*physical]struct{})
	p.life.ctx, p.life.end = context.WithCancel(context.Background())
	limits := pool.Options{Timeout: -1, MaxOverflow: -1, OrphanTimeout: orphanLimit, Now: clock.Now}
	if p.governed {
		limits = pool.Options{
			Size: opts.Size, MaxOverflow: opts.MaxOverflow, Timeout: opts.Timeout, MinIdle: opts.MinIdle,
			IdleTimeout: opts.IdleTimeout, Period: opts.Recycle / 10, Now: clock.Now,
		}
		if opts.Leaks != nil {
			limits.Who = func(ctx context.Context) any { return opts.Leaks.Wait(ctx) }
		}
	}
	p.lending = pool.New[*physical](lent{p}, limits)
	p.reset.Store(new(pool.Figures))
	switch {
	case opts.DiscardAll:
	case opts.PrePing:
		p.trust = justUsed
	default:
		p.trust = math.MaxInt64
	}
	return p
}

// Connect is a checkout when the driver governs, and opens a connection when database/sql does.
func (p *Pool) Connect(ctx context.Context) (driver.Conn, error) {
	fromOpener := p.opener.is(ctx)
	c := &Conn{home: p, pool: p, closing: stats.ClosedIdle}
	c.tx.conn, c.tx.ctx.Context = c, context.Background()
	c.life.shared = p.shared()
	if p.governed {
		if fromOpener {
			p.warned.limit.Do(p.warn)
			return c.withShape(!p.lacks.exec.Load(), !p.lacks.query.Load()), nil
		}
		c.pool = p.poolFor(ctx)
		ph, at, err := c.pool.checkout(ctx)
		if err != nil {
			return nil, err
		}
		c.take(ph)
		ph.lentTo(c, at)
		c.pool.event(ctx, "checkout", ph)
		ph.track(ctx)
		c.life.hold()
		return c.withShape(ph.features.CanExec(), ph.features.CanQuery()), nil
	}
	ph, _, _, err := p.lending.Acquire(ctx)
	if err != nil {
		return nil, p.failed(ctx, err, 0)
	}
	p.lending.Detach()
	c.phys = ph
	ph.user.Store(c)
	if !fromOpener {
		if err := c.checkOut(ctx); err != nil {
			return nil, err
		}
	}
	return c.withShape(ph.features.CanExec(), ph.features.CanQuery()), nil
}

// shared says that Reclaim may come.
func (p *Pool) shared() bool { return p.opts.ReclaimAfter > 0 && p.opts.Leaks != nil }

// checkout is the governed pool's, and since when it counts.
func (p *Pool) checkout(ctx context.Context) (ph *physical, at time.Duration, err error) {
	ph, waited, fresh, err := p.lending.Acquire(ctx)
	if err != nil {
		return nil, 0, p.failed(ctx, err, waited)
	}
	if at = ph.checkedOut; fresh {
		at = clock.Now()
	}
	ph.counts.CheckedOutAfter(waited)
	ph.waited(waited)
	return ph, at, nil
}

// tryCheckout is checkout where a connection is free; false if none is.
func (p *Pool) tryCheckout(ctx context.Context) (ph *physical, at time.Duration, ok bool) {
	if ph, ok = p.lending.TryAcquire(ctx); !ok {
		return nil, 0, false
	}
	ph.counts.CheckedOutAfter(0)
	ph.waited(0)
	return ph, ph.checkedOut, true
}

// lentTo begins the checkout of a connection at the given time. A call of track follows.
func (ph *physical) lentTo(c *Conn, at time.Duration) {
	ph.checkedOut = at
	if ph.slot != nil {
		ph.usedBy(c)
	}
}

// usedBy lets Reclaim know of a checkout.
func (ph *physical) usedBy(c *Conn) {
	ph.use.paused(ph.sock)
	if ph.user.Load() != c { // mostly it is: to look costs less than to write
		ph.user.Store(c)
	}
}

// waited lets leak detection know how long the checkout that follows took.
func (ph *physical) waited(d time.Duration) {
	if ph.slot != nil {
		ph.slot.Waited(d)
	}
}

// track lets leak detection know of the checkout. It is called on the goroutine of whoever checks the connection out, and
// from as near to database/sql as can be: each frame between costs each checkout a part of its stack.
func (ph *physical) track(ctx context.Context) {
	if ph.slot != nil {
		ph.checkout = ph.slot.CheckOut(ctx, ph.checkedOut)
	}
}

// checkIn counts a check-in.
func (p *Pool) checkIn(ph *physical, at time.Duration) {
	if !ph.obeys { // else there is nothing of the kind
		ph.doneWatching()
	}
	ph.cancels.Show(false)
	ph.stmts.next()
	if ph.slot != nil {
		ph.slot.CheckIn(at)
	}
	ph.freeSince = at
	ph.used = true
	ph.counts.CheckedIn(at - ph.checkedOut)
	p.event(context.Background(), "checkin", ph)
}

func (p *Pool) timeout(ctx context.Context, err error, waited time.Duration) error {
	e := &PoolTimeoutError{Pool: p.opts.Name, Waited: waited, Err: err, Dial: p.lending.LastError()}
	e.Open, e.InUse = p.Recorder.Now()
	e.Waiting = int64(p.lending.Figures().Waiting)
	if p.opts.Leaks != nil {
		e.Longest = p.opts.Leaks.Longest(longestHolders)
		e.Usage = p.opts.Leaks.TopUsage(longestHolders)
	}
	p.warnExhausted(ctx, e)
	return e
}

// longestHolders is how many checkouts, and users of the pool's time, a timeout names.
const longestHolders = 3

// Limits are pool_size and max_overflow as they are now.
func (p *Pool) Limits() (size, maxOverflow int) { return p.lending.Limits() }

// Resize changes the limits of a governed pool at once: surplus free connections are closed, those in use when they are given back.
func (p *Pool) Resize(size, maxOverflow int) { p.lending.Resize(size, maxOverflow) }

// Pause lends no connection of a governed pool until Resume. What it returns is closed when all were given back.
func (p *Pool) Pause() (drained <-chan struct{}) { return p.lending.Pause() }

// Resume ends Pause.
func (p *Pool) Resume() { p.lending.Resume() }

// callFailed tells the router what a call says of its endpoint. A caller that changed its mind says nothing, nor does a
// session that was idle for longer than the server allows.
func (p *Pool) callFailed(ctx context.Context, ph *physical, err error) {
	if ph.lost() {
		p.lastLoss.Store(int64(clock.Now()))
	}
	if !errors.Is(ctx.Err(), context.Canceled) && !ph.idledOut(err) {
		p.router.CallFailed(ph.member, err)
	}
}

// failed counts a checkout that got no connection, and is what its caller is told.
func (p *Pool) failed(ctx context.Context, err error, waited time.Duration) error {
	switch _, inUse := p.Recorder.Now(); {
	case err == pool.ErrClosed:
		err = ErrClosed
	case err == pool.ErrTimeout:
		err = p.timeout(ctx, ErrPoolTimeout, waited)
	case err != ctx.Err():
	case p.governed && inUse > 0:
		err = p.timeout(ctx, err, waited)
	default: // nobody has a connection: it is the dial that took too long
		if unreached := p.router.Unreached(err, waited); unreached != nil {
			err = unreached
		}
	}
	p.countFailed(err)
	if p.opts.Leaks != nil && waited > 0 {
		p.opts.Leaks.GaveUp(ctx, waited)
	}
	if p.opts.Echo {
		p.opts.Logger().DebugContext(ctx, "managedpg: checkout failed", "pool", p.opts.Name, "error", err)
	}
	return err
}

// unfit says why a connection that nobody uses is not to be used again, whatever the state of its session.
func (p *Pool) unfit(ph *physical, at time.Duration) (why stats.Closed, unfit bool) {
	switch {
	case ph.drains != p.life.drains.Load():
		if p.life.ctx.Err() != nil {
			return stats.ClosedShutdown, true
		}
		return stats.ClosedDrain, true
	case ph.epoch != ph.signals.Epoch.Load():
		return stats.ClosedEndpoint, true
	case at >= ph.expires:
		return stats.ClosedRecycle, true
	case ph.goesForOthers():
		return stats.ClosedEndpoint, true
	default:
		return 0, false
	}
}

// keeps says whether a session may have a next user, and else why not. It doesn't block.
func (p *Pool) keeps(ph *physical, at time.Duration) (why stats.Closed, kept bool) {
	if !ph.asOpened(p, at) {
		if why, unfit := p.unfit(ph, at); unfit {
			return why, false
		}
	}
	if !ph.sound() {
		return ph.whyUnsound(), false
	}
	return stats.ClosedIdle, true
}

// release is the governed pool's check-in of a session that is sound and fit. One for which a cancel request was sent is made fit for
// its next statement first, in the background. It doesn't wait for one to be closed.
func (p *Pool) release(ph *physical, at time.Duration) {
	p.checkIn(ph, at)
	if ph.cancels.Pending() == nil {
		if !p.lending.Release(ph, at) {
			go p.end(ph, stats.ClosedOverflow, p.lending.Gone)
		}
		return
	}
	since := p.lending.Settling()
	go func() {
		_ = ph.settle(context.Background())
		why, kept := p.giveBack(ph, clock.Now())
		p.lending.Settled(since)
		if !kept {
			p.end(ph, why, p.lending.Gone)
		}
	}()
}

// putBack puts a connection that was lent out of turn where it goes.
func (p *Pool) putBack(ph *physical, at time.Duration) {
	if why, kept := p.giveBack(ph, at); !kept {
		p.end(ph, why, p.lending.Gone)
	}
}

// giveBack gives the pool a connection back that was lent out of turn, or is fit for its next statement now; or says why it isn't to be kept.
func (p *Pool) giveBack(ph *physical, at time.Duration) (why stats.Closed, kept bool) {
	why, unfit := p.unfit(ph, at)
	if !unfit && ph.lost() {
		why, unfit = stats.ClosedBroken, true
	}
	if unfit {
		p.lending.Taken()
		return why, false
	}
	return stats.ClosedOverflow, p.lending.Release(ph, at)
}

// discard is the governed pool's check-in of a session that isn't sound, isn't to be used again, or of which database/sql didn't ask
// whether it is.
func (p *Pool) discard(ph *physical) {
	at := clock.Now()
	p.checkIn(ph, at)
	why, unfit := p.unfit(ph, at)
	if !unfit {
		why = ph.whyUnsound()
	}
	p.lending.Taken()
	p.end(ph, why, p.lending.Gone)
}
