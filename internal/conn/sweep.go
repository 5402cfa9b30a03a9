package conn

import (
	"context"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/stats"
)

// Drain closes all free connections now, and each of the others when it is given back.
func (p *Pool) Drain() {
	p.life.drains.Add(1)
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
	p.open.mu.Lock()
	var parked []*physical
	for ph := range p.open.all {
		if c := ph.user.Load(); c != nil && c.life.parked() {
			parked = append(parked, ph)
		}
	}
	p.open.mu.Unlock()
	for _, ph := range parked {
		if why, unfit := p.unfit(ph, at); unfit && ph.user.Load().life.sweep() {
			p.end(ph, why, nil)
		}
	}
}

// goesForOthers says that a connection which nobody uses is to be closed because other members have too few, and counts it as one.
func (ph *physical) goesForOthers() bool {
	toGo := &ph.signals.Surplus
	for n := toGo.Load(); n > 0 && !ph.surplus.Load(); n = toGo.Load() {
		ph.surplus.Store(toGo.CompareAndSwap(n, n-1))
	}
	return ph.surplus.Load()
}

// Close closes the free connections, wakes those who wait with ErrClosed, and leaves what is borrowed to be closed when
// it is given back. It doesn't wait for borrowers.
func (p *Pool) Close() error {
	p.life.end()
	p.life.drains.Add(1)
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
	p.applyTo(fenced, func(ph *physical) { ph.fence(reason) })
}

// KillStuck closes the sockets to a server on which somebody waits for the server, that has said nothing since then.
func (p *Pool) KillStuck(member int, since time.Time, reason error) {
	p.applyTo(func(ph *physical) bool { return ph.member == member && ph.stuck(since) }, func(ph *physical) { ph.base.Kill(reason) })
}

func (p *Pool) applyTo(meant func(*physical) bool, how func(*physical)) {
	p.open.mu.Lock()
	var victims []*physical
	for ph := range p.open.all {
		if meant(ph) {
			victims = append(victims, ph)
		}
	}
	p.open.mu.Unlock()
	for _, ph := range victims {
		how(ph)
	}
	p.Sweep()
}

// InUse says that there are connections to the member, free or not.
func (p *Pool) InUse(member int) bool {
	p.open.mu.Lock()
	defer p.open.mu.Unlock()
	for ph := range p.open.all {
		if ph.member == member {
			return true
		}
	}
	return false
}

// end closes the connection and counts why; then, if not nil, is called once its socket is closed.
func (p *Pool) end(ph *physical, why stats.Closed, then func()) {
	if why == stats.ClosedBroken {
		p.lastLoss.Store(int64(clock.Now()))
	}
	p.forget(ph)
	p.event(context.Background(), "close", ph, "reason", why)
	ph.close(func() {
		ph.counts.Closed(why)
		if then != nil {
			then()
		}
	})
}

// forget takes a connection that is about to be closed off the books.
func (p *Pool) forget(ph *physical) {
	if ph.slot != nil {
		ph.slot.Remove()
	}
	p.open.mu.Lock()
	defer p.open.mu.Unlock()
	if _, listed := p.open.all[ph]; listed {
		ph.signals.Load.Add(-1)
	}
	delete(p.open.all, ph)
}
