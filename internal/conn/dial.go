package conn

import (
	"context"
	"math"
	"math/rand/v2"
	"net"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/limit"
	"github.com/managedpg/managedpg/internal/usercode"
	"github.com/managedpg/managedpg/stats"
)

// A connection whose endpoint's were closed while it was opened is opened again: at once, then after firstRepeat, then after twice as long
// each time, up to longestRepeat. What a dial sees of a server's role and what a probe sees may differ for long, behind a proxy say.
const (
	firstRepeat   = 5 * time.Millisecond
	longestRepeat = 80 * time.Millisecond
)

// dial opens a connection to the endpoint that the router chooses. Until is when whoever it is for gives up.
func (p *Pool) dial(ctx context.Context, until time.Time) (*physical, error) {
	for pause := time.Duration(0); ; pause = min(max(2*pause, firstRepeat), longestRepeat) {
		ph, err := p.dialOnce(ctx, until)
		if err != nil || ph.epoch == ph.signals.Epoch.Load() {
			return ph, err
		}
		// What closes an endpoint's connections may have passed before this one was on the books.
		p.end(ph, stats.ClosedEndpoint, nil)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *Pool) dialOnce(ctx context.Context, until time.Time) (*physical, error) {
	var ph *physical
	drains := p.life.drains.Load()
	err := p.router.Connect(ctx, until, func(ctx context.Context, to Route) error {
		epoch := to.Signals.Epoch.Load()
		opened, err := p.openPhysical(ctx, to)
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
	p.open.mu.Lock()
	p.open.all[ph] = struct{}{}
	p.open.mu.Unlock()
	p.event(ctx, "dial", ph)
	return ph, nil
}

func newPhysical(c base.Conn) *physical {
	return &physical{link: link{
		base: c, features: c.Features(), sock: c.Socket(), cancels: c.Cancels(),
		obeys: c.ObeysContext(), keepsCtx: c.Known() && c.ObeysContext(), tracksTx: c.Known() && c.TxStatus() == base.TxUnknown,
	}}
}

// openPhysical dials the endpoint and makes a physical connection of what it gets, if the router admits it.
func (p *Pool) openPhysical(ctx context.Context, to Route) (_ *physical, err error) {
	start := clock.Now()
	turnedDown := false
	defer func() {
		if err != nil && !turnedDown && p.life.ctx.Err() == nil {
			p.Recorder.CountError(stats.ErrorDial, errorCode(err))
		}
	}()
	c, err := to.Endpoint.Connect(ctx)
	if err != nil {
		return nil, err
	}
	ph := newPhysical(c)
	ph.pool = p
	ph.quiet = ph.obeys && !p.shared()
	ph.endpoint, ph.member, ph.signals = to.Endpoint, to.Member, to.Signals
	ph.cancels.Counter = p
	if ph.once = p.opts.DiscardAll && c.HasHook(); ph.once {
		p.warned.reset.Do(p.warnReset)
	}
	ready := false
	defer func() { // also when OnConnect panics
		if !ready {
			if ph.lost() {
				ph.base.Kill(net.ErrClosed) // pgx may go on in the background, and its place is free from now on
			}
			ph.close(func() {})
		}
	}()
	if ph.server, err = ph.base.Identify(ctx, p.opts.Role, to.Moves); err != nil {
		return nil, err
	}
	if err := p.router.Admit(ctx, ph.server); err != nil {
		turnedDown = true // the server has let us in, and it is we who want another one
		return nil, err
	}
	if err := p.setUp(ctx, ph); err != nil {
		return nil, err
	}
	ready = true
	if !ph.features.CanExec() {
		p.lacks.exec.Store(true)
	}
	if !ph.features.CanQuery() {
		p.lacks.query.Store(true)
	}
	ph.freeSince = clock.Now()
	ph.opened = ph.freeSince
	ph.id = p.open.lastID.Add(1)
	ph.expires = math.MaxInt64
	if p.opts.Recycle > 0 {
		ph.expires = ph.freeSince + p.opts.Recycle - p.jitter(p.opts.Recycle/10)
	}
	ph.counts = p.Recorder.Created(ph.freeSince - start)
	return ph, nil
}

// setUp makes a new connection ready for its first user.
func (p *Pool) setUp(ctx context.Context, ph *physical) error {
	ph.base.OnSyncWait(func() { ph.syncWait.Store(true) })
	if p.opts.OnConnect != nil {
		if err := p.onFirstConnect(ctx, ph); err != nil {
			return err
		}
	}
	return p.makeReadOnly(ctx, ph)
}

// onFirstConnect is onConnect in a dial.
func (p *Pool) onFirstConnect(ctx context.Context, ph *physical) error {
	limit.Stop(ctx)
	defer limit.Start(ctx)
	ctx, watch := ph.watch(ctx, 0) // nothing can be lost
	defer watch.stop()
	if err := p.onConnect(ctx, ph); err != nil {
		return err
	}
	if ctx.Err() != nil { // it has taken longer than it may
		return &usercode.Error{Err: ctx.Err()}
	}
	return nil
}

// onConnect calls the user's OnConnect, whose error is no evidence about the server.
func (p *Pool) onConnect(ctx context.Context, ph *physical) error {
	if err := p.opts.OnConnect(ctx, ph.base.Raw()); err != nil {
		return &usercode.Error{Err: err}
	}
	return nil
}

// jitter is a random part of at most d.
func (p *Pool) jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}
