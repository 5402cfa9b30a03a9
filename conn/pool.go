// Package conn is a connection's life: the physical connection, the pool it lives in, and the logical connection (Conn,
// Stmt, Tx) that database/sql holds.
//
// It keeps the promise that no statement is sent twice: driver.ErrBadConn, on which database/sql tries again, leaves this
// package only when not one byte of the call reached the socket.
package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/closed"
	"github.com/managedpg/managedpg/internal/pool"
	"github.com/managedpg/managedpg/internal/usercode"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Options are what a pool needs to know of its configuration. The keys are explained in driver.Config.
type Options struct {
	Name           string
	Size           int // pool_size; 0: database/sql governs
	MaxOverflow    int // -1: no limit
	Timeout        time.Duration
	Recycle        time.Duration
	IdleTimeout    time.Duration
	MinIdle        int
	PrePing        bool
	PingTimeout    time.Duration
	CancelTimeout  time.Duration
	StatementCache int
	DiscardAll     bool
	Echo           bool
	ReadOnly       bool // nothing can be written in its sessions
	Role           bool // the role of each connection's server must be known
	OnConnect      func(context.Context, driver.Conn) error
	Logger         func() *slog.Logger
	Leaks          *leak.Tracker // nil: no leak detection
	ReclaimAfter   time.Duration // what Leaks has
	// Prober is an endpoint's, whose connection a LostError's Resolve may ask; it may be nil, or return nil.
	Prober func(member int) *Prober
}

// Router says where a new connection leads to, and hears what calls tell of the servers.
type Router interface {
	// Connect calls open with the one to dial, and with others when that fails, until one succeeds or there is no use in
	// going on.
	// It shares the time until then out among the ones it tries; zero: there is no such limit.
	Connect(ctx context.Context, until time.Time, open func(ctx context.Context, to Route) error) error
	// Unreached is what a caller is told whose context ended with err before there was a connection; nil: just that.
	Unreached(err error, waited time.Duration) error
	// Admit is asked, with open's context, whether the connection that was opened may be used.
	Admit(ctx context.Context, s base.Server) error
	// CallFailed is evidence about the one of that number.
	CallFailed(member int, err error)
}

// Route is where a connection is to lead.
type Route struct {
	// Endpoint is to be dialled.
	Endpoint *base.Endpoint
	// Member is its number with the Router.
	Member int
	// Epoch changes when connections made before are no longer to be used. It is looked at in every checkout and check-in.
	Epoch *atomic.Uint64
	// Hung is true while the server seems to answer nobody: a connection is asked before it is used again.
	Hung *atomic.Bool
	// Load, if not nil, counts the connections that lead there: the Router each that is opened, and whoever closes it takes it off.
	Load *atomic.Int64
	// Moves says that Admit needs to know the timeline of the server that the connection leads to.
	Moves bool
}

// Pool lends physical connections.
//
// When the driver governs (Options.Size > 0), lending has the free connections, the queue and the dials: see internal/pool.
//
// When database/sql governs, each physical connection belongs to one logical connection for life. Lending dials it, keeps what a dial
// brings whose caller has gone for the next one, and counts it no more once it has its owner.
type Pool struct {
	Recorder stats.Recorder

	opts     Options
	governed bool
	reclaims bool // checkouts may be taken back
	router   Router
	opener   openerDetector

	texts *texts // shared with reads
	reads *Pool  // for checkouts that only read; nil: there is no such pool

	warnOfLimit sync.Once
	warnOfReset sync.Once
	maxIdle     maxIdleClosed

	// What the base connections opened so far lack, for a logical connection that has none yet.
	cantExec, cantQuery atomic.Bool

	lastID   atomic.Uint64
	lastLoss atomic.Int64  // when a connection was last found broken, by clock.Now(), wherever it led
	drains   atomic.Uint64 // counts Drain and Close: connections opened before the last one aren't used again

	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	lending *pool.Pool[*physical]
	reset   atomic.Pointer[pool.Figures] // lending's at the last ResetStats

	mu  sync.Mutex             // guards all. Nothing that could block is done while it is held
	all map[*physical]struct{} // every open connection, free or not
}

// orphanLimit is how long a connection waits for the next caller when database/sql governs, and whoever it was dialled for has gone.
const orphanLimit = 5 * time.Second

// New makes a pool.
func New(opts Options, router Router) *Pool {
	p := &Pool{
		opts:     opts,
		governed: opts.Size > 0,
		reclaims: opts.ReclaimAfter > 0 && opts.Leaks != nil,
		router:   router,
		all:      make(map[*physical]struct{}),
		texts:    new(texts),
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	limits := pool.Options{Timeout: -1, MaxOverflow: -1, OrphanTimeout: orphanLimit, Now: clock.Now}
	if p.governed {
		limits = pool.Options{
			Size: opts.Size, MaxOverflow: opts.MaxOverflow, Timeout: opts.Timeout, MinIdle: opts.MinIdle,
			IdleTimeout: opts.IdleTimeout, Period: opts.Recycle / 10, Now: clock.Now,
		}
	}
	p.lending = pool.New[*physical](lent{p}, limits)
	p.reset.Store(new(pool.Figures))
	return p
}

// ErrClosed is what a checkout gets after db.Close.
var ErrClosed = closed.Err

// Connect is a checkout when the driver governs, and opens a connection when database/sql does.
func (p *Pool) Connect(ctx context.Context) (driver.Conn, error) {
	fromOpener := p.opener.is(ctx)
	c := &Conn{home: p, pool: p, closing: stats.ClosedIdle}
	c.life.shared = p.reclaims
	if p.governed {
		if fromOpener {
			p.warnOfLimit.Do(p.warn)
			return c.shaped(!p.cantExec.Load(), !p.cantQuery.Load()), nil
		}
		c.pool = p.meant(ctx)
		ph, at, err := c.pool.checkout(ctx)
		if err != nil {
			return nil, err
		}
		c.pool.lend(ctx, c, ph, at)
		ph.track(ctx)
		c.life.hold()
		return c.shaped(ph.features.CanExec(), ph.features.CanQuery()), nil
	}
	ph, _, _, err := p.lending.Acquire(ctx)
	if err != nil {
		return nil, p.failed(ctx, err, 0)
	}
	p.lending.Detach()
	c.phys = ph
	ph.user.Store(c)
	if !fromOpener {
		if err := c.bind(ctx); err != nil {
			return nil, err
		}
	}
	return c.shaped(ph.features.CanExec(), ph.features.CanQuery()), nil
}

// checkout is the governed pool's, and since when it counts.
func (p *Pool) checkout(ctx context.Context) (ph *physical, at time.Duration, err error) {
	ph, waited, fresh, err := p.lending.Acquire(ctx)
	if err != nil {
		return nil, 0, p.failed(ctx, err, waited)
	}
	if at = ph.checkedOut; fresh {
		at = clock.Now()
	}
	p.Recorder.CheckedOutAfter(waited)
	ph.waited(waited)
	return ph, at, nil
}

// tryCheckout is checkout where a connection is free; false if none is.
func (p *Pool) tryCheckout(ctx context.Context) (ph *physical, at time.Duration, ok bool) {
	if ph, ok = p.lending.TryAcquire(ctx); !ok {
		return nil, 0, false
	}
	p.Recorder.CheckedOutAfter(0)
	ph.waited(0)
	return ph, ph.checkedOut, true
}

// lend gives a connection to c, whose checkout began at the given time. A call of track follows.
func (p *Pool) lend(ctx context.Context, c *Conn, ph *physical, at time.Duration) {
	c.phys = ph
	if p.governed {
		c.checkout++
		if p.reads != nil {
			c.since = ph.base.Mark()
		}
	}
	ph.checkedOut = at
	if ph.slot != nil {
		ph.use.paused(ph.sock)
		ph.user.Store(c)
	}
	p.event(ctx, "checkout", ph)
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

// takeBack counts a check-in.
func (p *Pool) takeBack(ph *physical, at time.Duration) {
	ph.doneReading()
	ph.doneWithRows()
	ph.stmts.next()
	ph.txCtx = nil
	if ph.slot != nil {
		ph.slot.CheckIn(at)
		if p.governed {
			ph.user.Store(nil) // and nothing of the last user's is kept alive
		}
	}
	ph.freeSince = at
	ph.used = true
	p.Recorder.CheckedIn(at - ph.checkedOut)
	p.event(context.Background(), "checkin", ph)
}

func (p *Pool) timeout(err error, waited time.Duration) error {
	e := &PoolTimeoutError{Pool: p.opts.Name, Waited: waited, Err: err, Dial: p.lending.LastError()}
	e.Open, e.InUse = p.Recorder.Now()
	e.Waiting = int64(p.lending.Figures().Waiting)
	if p.opts.Leaks != nil {
		e.Longest = p.opts.Leaks.Longest(longestHolders)
		e.Usage = p.opts.Leaks.TopUsage(longestHolders)
	}
	return e
}

// longestHolders is how many checkouts, and users of the pool's time, a timeout names.
const longestHolders = 3

// warn tells of the one setting of sql.DB's that works against a governed pool.
func (p *Pool) warn() {
	p.opts.Logger().Warn("managedpg: SetMaxOpenConns is in force beside pool_size: calls wait in two queues, and only one "+
		"of them knows pool_timeout and shows in the figures; leave the limit to pool_size and max_overflow", "pool", p.opts.Name)
}

func (p *Pool) warnReset() {
	p.opts.Logger().Warn("managedpg: pool_reset=discard_all with AfterConnect of pgx: each connection is closed when it is given back",
		"pool", p.opts.Name)
}

// Fill writes what the queue and the dials are doing into a snapshot of a governed pool.
func (p *Pool) Fill(s *stats.Snapshot) {
	if !p.governed {
		return
	}
	f, since := p.lending.Figures(), p.reset.Load()
	s.Waiting, s.Dialling = int64(f.Waiting), int64(f.Dialling)
	s.QueueStanding, s.Paused = f.Standing, f.Paused
	s.NewestFirst, s.OrphanedDials = f.NewestFirst-since.NewestFirst, f.Orphaned-since.Orphaned
}

// FillTotals is Fill without regard to ResetStats.
func (p *Pool) FillTotals(s *stats.Snapshot) {
	p.Fill(s)
	since := p.reset.Load()
	s.NewestFirst += since.NewestFirst
	s.OrphanedDials += since.Orphaned
}

// ResetStats makes the counts start anew.
func (p *Pool) ResetStats() {
	p.Recorder.Reset()
	f := p.lending.Figures()
	p.reset.Store(&f)
}

// Limits are pool_size and max_overflow as they are now.
func (p *Pool) Limits() (size, maxOverflow int) { return p.lending.Limits() }

// Resize changes the limits of a governed pool at once: surplus free connections are closed, those in use when they are given back.
func (p *Pool) Resize(size, maxOverflow int) { p.lending.Resize(size, maxOverflow) }

// Pause lends no connection of a governed pool until Resume, and returns when all were given back, or with the context's error.
func (p *Pool) Pause(ctx context.Context) error { return p.lending.Pause(ctx) }

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
		err = p.timeout(ErrPoolTimeout, waited)
	case err != ctx.Err():
	case p.governed && inUse > 0:
		err = p.timeout(err, waited)
	default: // nobody has a connection: it is the dial that took too long
		if unreached := p.router.Unreached(err, waited); unreached != nil {
			err = unreached
		}
	}
	p.Recorder.CheckoutFailed(errors.Is(err, ErrPoolTimeout))
	if p.opts.Echo {
		p.opts.Logger().DebugContext(ctx, "managedpg: checkout failed", "pool", p.opts.Name, "error", err)
	}
	return err
}

// unfit says why a connection is not to be used again, whatever the state of its session.
func (p *Pool) unfit(ph *physical, at time.Duration) (why stats.Closed, unfit bool) {
	switch {
	case ph.drains != p.drains.Load():
		if p.ctx.Err() != nil {
			return stats.ClosedShutdown, true
		}
		return stats.ClosedDrain, true
	case ph.epoch != ph.epochNow.Load(), ph.surplus.Load():
		return stats.ClosedEndpoint, true
	case p.opts.Recycle > 0 && at >= ph.expires:
		return stats.ClosedRecycle, true
	default:
		return 0, false
	}
}

// giveBack is the governed pool's check-in of a session that is sound and fit. One for which a cancel request was sent is made fit for
// its next statement first, in the background. It doesn't wait for one to be closed.
func (p *Pool) giveBack(ph *physical, at time.Duration) {
	p.takeBack(ph, at)
	if ph.cancels.Pending() == nil {
		if !p.lending.Release(ph, at) {
			go p.end(ph, stats.ClosedOverflow, p.lending.Gone)
		}
		return
	}
	go func() {
		_ = ph.settle(context.Background())
		p.store(ph, clock.Now())
	}()
}

// store puts a connection that was lent out of turn, or is fit for its next statement now, where it goes.
func (p *Pool) store(ph *physical, at time.Duration) {
	why, unfit := p.unfit(ph, at)
	if !unfit && ph.lost() {
		why, unfit = stats.ClosedBroken, true
	}
	if unfit {
		p.lending.Taken()
	} else if p.lending.Release(ph, at) {
		return
	} else {
		why = stats.ClosedOverflow
	}
	p.end(ph, why, p.lending.Gone)
}

// discard is the governed pool's check-in of a session that isn't sound, isn't to be used again, or of which database/sql didn't ask
// whether it is.
func (p *Pool) discard(ph *physical) {
	at := clock.Now()
	p.takeBack(ph, at)
	why, unfit := p.unfit(ph, at)
	if !unfit {
		why = ph.whyUnsound()
	}
	p.lending.Taken()
	p.end(ph, why, p.lending.Gone)
}

// dial opens a connection to the endpoint that the router chooses. Until is when whoever it is for gives up.
func (p *Pool) dial(ctx context.Context, until time.Time) (*physical, error) {
	var ph *physical
	drains := p.drains.Load()
	err := p.router.Connect(ctx, until, func(ctx context.Context, to Route) error {
		epoch := to.Epoch.Load()
		opened, err := p.open(ctx, to)
		if err != nil {
			return err
		}
		opened.epoch, opened.drains = epoch, drains
		ph = opened
		return nil
	})
	if theirs, ok := err.(*usercode.Error); ok {
		return nil, theirs.Err // as the bare driver has it
	}
	if err != nil {
		return nil, err
	}
	if p.opts.Leaks != nil {
		ph.slot = p.opts.Leaks.Slot(ph.id, ph.endpoint.Name, ph.server.PID, ph)
	}
	p.mu.Lock()
	p.all[ph] = struct{}{}
	p.mu.Unlock()
	p.event(ctx, "dial", ph)
	if ph.epoch != ph.epochNow.Load() {
		// What closes an endpoint's connections may have passed before this one was on the books.
		p.end(ph, stats.ClosedEndpoint, nil)
		return p.dial(ctx, until)
	}
	return ph, nil
}

// forget takes a connection that is about to be closed off the books.
func (p *Pool) forget(ph *physical) {
	if ph.slot != nil {
		ph.slot.Remove()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, listed := p.all[ph]; listed && ph.load != nil {
		ph.load.Add(-1)
	}
	delete(p.all, ph)
}

// Drain closes all free connections now, and each of the others when it is given back.
func (p *Pool) Drain() {
	p.drains.Add(1)
	p.Sweep()
}

// Sweep closes the free connections that aren't to be used again.
func (p *Pool) Sweep() {
	p.lending.Sweep()
	if !p.governed {
		p.sweepParked(clock.Now())
	}
}

// sweepParked closes those that lie in database/sql's free list. It finds out when it wants to use them.
func (p *Pool) sweepParked(at time.Duration) {
	p.mu.Lock()
	var unfit []*physical
	for ph := range p.all {
		if _, bad := p.unfit(ph, at); bad {
			unfit = append(unfit, ph)
		}
	}
	p.mu.Unlock()
	for _, ph := range unfit {
		if c := ph.user.Load(); c != nil && c.life.sweep() {
			why, _ := p.unfit(ph, at)
			p.end(ph, why, nil)
		}
	}
}

// Close closes the free connections, wakes those who wait with ErrClosed, and leaves what is borrowed to be closed when
// it is given back. It doesn't wait for borrowers.
func (p *Pool) Close() error {
	p.stop()
	p.drains.Add(1)
	p.lending.Close()
	return nil
}

// Kill lets nothing more be sent to a fenced server on the connections there are: those that lead to a server which could write, on
// a timeline below the given one or on one that wasn't asked for when nobody knew of another. What was sent may still be answered, for up
// to wire.CloseLimit: to close the socket under it would not undo it, only leave its sender in the dark. Whatever comes next on
// such a connection gets the reason.
func (p *Pool) Kill(member int, below int64, reason error) {
	fenced := func(ph *physical) bool {
		return ph.member == member && ph.server.Standby != base.Yes && ph.server.Timeline < below
	}
	p.onThose(fenced, func(ph *physical) { ph.condemn(reason) })
}

// KillStuck closes the sockets to a server on which somebody waits for the server, that has said nothing since then.
func (p *Pool) KillStuck(member int, since time.Time, reason error) {
	p.onThose(func(ph *physical) bool { return ph.member == member && ph.stuck(since) }, func(ph *physical) { ph.base.Kill(reason) })
}

func (p *Pool) onThose(meant func(*physical) bool, how func(*physical)) {
	p.mu.Lock()
	var victims []*physical
	for ph := range p.all {
		if meant(ph) {
			victims = append(victims, ph)
		}
	}
	p.mu.Unlock()
	for _, ph := range victims {
		how(ph)
	}
	p.Sweep()
}

// Shed has n of the member's connections closed as they are checked in, those that are free at once. Those that are to go already count.
func (p *Pool) Shed(member, n int) {
	p.mu.Lock()
	var stay []*physical
	for ph := range p.all {
		switch {
		case ph.member != member:
		case ph.surplus.Load():
			n--
		default:
			stay = append(stay, ph)
		}
	}
	p.mu.Unlock()
	for _, ph := range stay[:max(0, min(n, len(stay)))] {
		ph.surplus.Store(true)
	}
	p.Sweep()
}

// InUse says that there are connections to the member, free or not.
func (p *Pool) InUse(member int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ph := range p.all {
		if ph.member == member {
			return true
		}
	}
	return false
}

// jitter is a random part of at most d.
func (p *Pool) jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// event logs what happened to a connection, if echo_pool asks for it.
func (p *Pool) event(ctx context.Context, what string, ph *physical, more ...any) {
	if p.opts.Echo { // nothing more, so that it is inlined
		p.log(ctx, what, ph, more...)
	}
}

func (p *Pool) log(ctx context.Context, what string, ph *physical, more ...any) {
	log := p.opts.Logger()
	if !log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := append([]any{"pool", p.opts.Name, "connection_id", ph.id, "endpoint", ph.endpoint.Name}, more...)
	log.DebugContext(ctx, "managedpg: "+what, attrs...)
}
