package conn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/resolve"
)

// sentCommit is a COMMIT that was sent, and over which connection.
type sentCommit struct {
	*resolve.Commit
	over *physical
}

var _ resolve.Pool = (*sentCommit)(nil)

// explain adds to an error what is needed to ask for the outcome of the COMMIT that met it.
func (ph *physical) explain(err error, sent *resolve.Commit) {
	var lost *LostError
	if errors.As(err, &lost) && lost.Kind == ErrOutcomeUnknown {
		lost.XID, lost.Ask = sent.XID, (&sentCommit{sent, ph}).ask
	}
}

// ask is a LostError's: what the server says that became of the COMMIT.
func (c *sentCommit) ask(ctx context.Context) (conn.Outcome, error) {
	if c.Why != "" {
		return conn.OutcomeUnknown, fmt.Errorf("managedpg: not asked: %s", c.Why)
	}
	found, err := c.Outcome(ctx, c.over.pool.life.ctx, c, c.over.endpoint.Name)
	switch found {
	case resolve.Committed:
		return conn.Committed, nil
	case resolve.Aborted:
		return conn.Aborted, nil
	default:
		return conn.OutcomeUnknown, err
	}
}

// Fresh opens a connection to the server that the COMMIT was sent to.
func (c *sentCommit) Fresh(ctx context.Context) (base.Conn, error) {
	return c.over.endpoint.ConnectToAsk(ctx)
}

// Fenced is why what the server says it has committed doesn't count.
func (c *sentCommit) Fenced(s base.Server) error { return c.over.pool.router.Fenced(s) }

// Older lends one that was opened before the given time: a free connection of the pool, or the monitor's own.
func (c *sentCommit) Older(_ context.Context, before time.Duration, passed map[any]bool) (lent *resolve.Lent, busy bool) {
	passed[c.over] = true
	return c.over.pool.older(c.over.member, before, passed)
}

// older lends a connection to the member that was opened before the given time, and is none of those passed over. Busy says that there
// is one, but that somebody uses it.
func (p *Pool) older(member int, before time.Duration, passed map[any]bool) (lent *resolve.Lent, busy bool) {
	meant := func(ph *physical) bool { // asked of connections in use too, of which the base must not be asked anything
		return ph.member == member && ph.opened < before && !passed[ph] && !ph.sock.IsBroken()
	}
	var older []*physical
	p.open.mu.Lock()
	for ph := range p.open.all {
		if meant(ph) {
			older = append(older, ph)
		}
	}
	p.open.mu.Unlock()
	if p.opts.Prober != nil {
		// The monitor's own does as well, and nobody waits for it.
		if lent, busy = p.opts.Prober(member).older(before, passed); lent != nil {
			return lent, true
		}
	}
	if len(older) == 0 {
		return nil, busy
	}
	var ph *physical
	var giveBack func()
	if p.governed {
		ph, giveBack = p.borrowFree(meant)
	} else {
		ph, giveBack = p.borrowParked(older)
	}
	if ph == nil {
		return nil, true
	}
	return &resolve.Lent{Conn: ph.base, PID: ph.server.PID, Key: ph, GiveBack: giveBack}, true
}

// borrowFree takes a free connection out of the driver's own pool.
func (p *Pool) borrowFree(meant func(*physical) bool) (ph *physical, giveBack func()) {
	ph, ok := p.lending.Borrow(meant)
	if !ok {
		return nil, nil
	}
	return ph, func() { p.putBack(ph, clock.Now()) }
}

// borrowParked takes a connection that lies in database/sql's free list. If database/sql wants to use it meanwhile, it
// waits for it to be given back.
func (p *Pool) borrowParked(older []*physical) (ph *physical, giveBack func()) {
	for _, ph := range older {
		c := ph.user.Load()
		if c == nil || !c.life.lend() {
			continue
		}
		return ph, func() {
			if !c.life.takeBack() {
				p.end(ph, c.closing, nil) // database/sql has closed it meanwhile
			} else if _, unfit := p.unfit(ph, clock.Now()); unfit {
				p.Sweep() // the last one has passed it over
			}
		}
	}
	return nil, nil
}
