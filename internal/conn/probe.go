package conn

import (
	"context"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/limit"
	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// Prober asks an endpoint what it is, or one of its addresses. It is for one goroutine at a time; Close may come from another.
type Prober struct {
	keep bool // the connection, from one probe to the next
	from int  // which question the server has answers from on

	mu     sync.Mutex // guards what follows
	kept   *probing   // nil while somebody has it
	out    *probing   // what was kept, while a probe or a LostError's Resolve has it
	closed bool
}

// probing is a prober's connection.
type probing struct {
	base.Conn
	opened time.Duration
	pid    uint32 // of the session then
	told   base.Server
}

// NewProber makes a prober. One that keeps its connection sees a promotion within a round trip; one that doesn't costs the
// server no connection between probes.
func NewProber(keep bool) *Prober { return &Prober{keep: keep} }

// Probe is one round trip on a connection that it kept, or that it opens. A kept connection that fails is no evidence
// against the server: a new one is opened and asked then. Anew asks for that from the start.
func (p *Prober) Probe(ctx context.Context, e *base.Endpoint, anew bool) (base.Probed, error) {
	if kept := p.takeKept(); kept != nil && anew {
		p.putBack(kept, false)
	} else if kept != nil {
		s, err := p.probe(ctx, kept)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
	}
	c, err := connectToAsk(ctx, e)
	if err != nil {
		return base.Probed{}, err
	}
	return p.probe(ctx, c)
}

// ProbeAddress is Probe on a connection that it opens, as the one that was kept may lead to where the address led before. The kept one stays,
// for what it can tell that a younger one can't, unless another server has answered.
func (p *Prober) ProbeAddress(ctx context.Context, e *base.Endpoint) (base.Probed, error) {
	c, err := connectToAsk(ctx, e)
	if err != nil {
		if sqlstate.Of(err) == sqlstate.CannotConnectNow { // a smart shutdown would wait for it
			if kept := p.takeKept(); kept != nil {
				p.putBack(kept, false)
			}
		}
		return base.Probed{}, err
	}
	s, err := p.question(ctx, c)
	if err != nil {
		c.end()
		return s, err
	}
	if kept := p.takeKept(); kept != nil {
		p.putBack(kept, kept.told.LooksLike(s.Server))
	}
	p.putBack(c, p.keep)
	return s, nil
}

func connectToAsk(ctx context.Context, e *base.Endpoint) (*probing, error) {
	ctx, cancel := context.WithTimeout(ctx, limit.Hook) // OptionBeforeConnect fetches credentials in its own time
	defer cancel()
	c, err := e.ConnectToAsk(ctx)
	if err != nil {
		return nil, err
	}
	return &probing{Conn: c, opened: clock.Now()}, nil
}

func (p *Prober) probe(ctx context.Context, c *probing) (base.Probed, error) {
	s, err := p.question(ctx, c)
	p.putBack(c, err == nil && p.keep)
	return s, err
}

func (p *Prober) question(ctx context.Context, c *probing) (base.Probed, error) {
	s, err := p.ask(ctx, c)
	if c.pid == 0 {
		c.pid = s.PID
	}
	if err == nil {
		c.told = s.Server
	}
	return s, err
}

func (p *Prober) ask(ctx context.Context, c base.Conn) (base.Probed, error) {
	if c.Askable() {
		return base.Question(ctx, c, &p.from)
	}
	pinger := c.Features().Pinger()
	if pinger == nil {
		return base.Probed{Note: "the driver has no Ping: that it connects is all that is known"}, nil
	}
	return base.Probed{Note: "not a base driver of managedpg's: that it answers a ping is all that is known"}, pinger.Ping(ctx)
}

func (p *Prober) takeKept() *probing {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.kept
	p.kept = nil
	if p.out == nil {
		p.out = c
	}
	return c
}

// putBack keeps a connection if it is fit for that; of two it keeps the older, which can tell more, and closes the other.
func (p *Prober) putBack(c *probing, fit bool) {
	p.mu.Lock()
	if p.out == c {
		p.out = nil
	}
	if fit && !p.closed && (p.kept == nil || c.opened < p.kept.opened) {
		c, p.kept = p.kept, c
	}
	p.mu.Unlock()
	if c != nil {
		c.end()
	}
}

// Close closes the connection that is kept, and lets none be kept any more.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	if c := p.takeKept(); c != nil {
		c.end()
	}
}

func (c *probing) end() { c.Close(func() {}) }

// older lends the connection that is kept from one probe to the next, if it was opened before the given time. Busy says that
// there is one, but that somebody has it. A nil Prober has none.
func (p *Prober) older(before time.Duration, passed map[any]bool) (c *resolve.Lent, busy bool) {
	if p == nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	meant := func(c *probing) bool { return c != nil && c.opened < before && !passed[c] }
	kept := p.kept
	if !meant(kept) {
		return nil, meant(p.out)
	}
	p.kept, p.out = nil, kept
	giveBack := func() { p.putBack(kept, !kept.Socket().IsBroken()) }
	return &resolve.Lent{Conn: kept.Conn, PID: kept.pid, Key: kept, GiveBack: giveBack}, true
}
