package conn

import (
	"context"
	"sync/atomic"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
)

// Who can tell what became of a COMMIT is whoever was connected to the server before it: a free connection of the pool,
// which is borrowed for a question, or the monitor's own.

// witness is a connection that is asked.
type witness struct {
	base.Conn
	pid    uint32      // of the session when the connection was opened
	older  bool        // than the COMMIT
	unsure atomic.Bool // a wait for synchronous standbys was cancelled

	key      any // what tells it from others, nil if it was opened to be asked
	giveBack func()
	answered chan struct{} // closed at the end of the last question, which may be later than the asker's
}

// ask asks one question. An older connection may be the last evidence that there is: so when ctx ends before it answers, it
// is given the time to, and is used by nobody until then.
func (r *resolving) ask(ctx context.Context, w *witness, query string) ([]string, error) {
	if !w.older {
		ctx, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		return w.ask(ctx, query)
	}
	w.answered = make(chan struct{})
	var row []string
	var err error
	go func() {
		defer close(w.answered)
		ctx, cancel := context.WithTimeout(r.pool.ctx, olderLimit)
		defer cancel()
		row, err = w.ask(ctx, query)
	}()
	select {
	case <-w.answered:
		return row, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// done gives back a connection that was borrowed, once it has answered.
func (w *witness) done() {
	select {
	case <-w.answered:
		w.giveBack()
	default:
		go func() {
			<-w.answered
			w.giveBack()
		}()
	}
}

// ask asks one question. A base that doesn't obey its context loses its socket when that ends.
func (w *witness) ask(ctx context.Context, query string) ([]string, error) {
	stop := context.AfterFunc(ctx, func() { w.Socket().CloseFor(ctx.Err()) })
	defer func() {
		if !stop() {
			w.Socket().CloseFor(ctx.Err()) // before somebody else uses it
		}
	}()
	return w.Ask(ctx, query)
}

// openWitness opens a connection to be asked.
func openWitness(ctx context.Context, e *base.Endpoint) (*witness, error) {
	c, err := e.ConnectToAsk(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.Identify(ctx, false, false)
	if err != nil {
		c.Close(func() {})
		return nil, err
	}
	w := &witness{Conn: c, pid: s.PID}
	c.OnNotice(func(routine string) {
		if routine == syncWait {
			w.unsure.Store(true)
		}
	})
	return w, nil
}

// witness borrows a connection to the endpoint that was opened before a COMMIT was sent. Busy says that there is one, but
// that somebody uses it.
func (p *Pool) witness(ctx context.Context, d *doubt, except map[any]bool) (w *witness, busy bool) {
	meant := func(ph *physical) bool { // asked of connections in use too, of which pgx must not be asked anything
		return ph.member == d.lost.member && ph.opened < d.at && !except[ph] && ph.sock.Broken() == nil
	}
	var older []*physical
	p.mu.Lock()
	for ph := range p.all {
		if meant(ph) {
			older = append(older, ph)
		}
	}
	p.mu.Unlock()
	if p.opts.Prober != nil {
		// The monitor's own does as well, and nobody waits for it.
		if w, busy = p.opts.Prober(d.lost.member).witness(d, except); w != nil {
			return w, true
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
	return &witness{Conn: ph.base, pid: ph.server.PID, older: true, key: ph, giveBack: giveBack}, true
}

// witness borrows the connection that is kept from one probe to the next, if it is older than the COMMIT. Busy says that
// there is one, but that somebody has it. A nil Prober has none.
func (p *Prober) witness(d *doubt, except map[any]bool) (w *witness, busy bool) {
	if p == nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	meant := func(c *probing) bool { return c != nil && c.opened < d.at && !except[c] }
	c := p.kept
	if !meant(c) {
		return nil, meant(p.out)
	}
	p.kept, p.out = nil, c
	giveBack := func() { p.giveBack(c, c.Socket().Broken() == nil) }
	return &witness{Conn: c.Conn, pid: c.pid, older: true, key: c, giveBack: giveBack}, true
}

// borrowFree takes a free connection out of the driver's own pool.
func (p *Pool) borrowFree(meant func(*physical) bool) (ph *physical, giveBack func()) {
	ph, ok := p.lending.Borrow(meant)
	if !ok {
		return nil, nil
	}
	return ph, func() { p.store(ph, clock.Now()) }
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
			if !c.life.giveBack() {
				p.end(ph, c.closing, nil) // database/sql has closed it meanwhile
			} else if _, unfit := p.unfit(ph, clock.Now()); unfit {
				p.Sweep() // the last one has passed it over
			}
		}
	}
	return nil, nil
}
