package resolve

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/base"
)

// Pool is asked for connections to the server that the COMMIT was sent to.
type Pool interface {
	// Older lends a connection that was opened before the given time, by clock.Now(), and is none of those passed over, nil if there is
	// none; busy says that there is one, but that somebody uses it.
	Older(ctx context.Context, before time.Duration, passed map[any]bool) (c *Lent, busy bool)
	// Fresh opens a connection.
	Fresh(ctx context.Context) (base.Conn, error)
	// Fenced is why a server must not be written to; nil if it isn't fenced.
	Fenced(base.Server) error
}

// Lent is a connection that a Pool lends.
type Lent struct {
	base.Conn
	// PID is that of the session when the connection was opened, 0 if it isn't known.
	PID uint32
	// Key is what tells it from others.
	Key any
	// GiveBack is called once it has answered.
	GiveBack func()
}

// conn is a connection that is asked.
type conn struct {
	Lent
	older  bool        // than the COMMIT, and lent; else it is our own
	unsure atomic.Bool // a wait for synchronous standbys was cancelled

	answered chan struct{} // closed at the end of the last question, which may be later than the asker's
}

// ask asks one question. An older connection may be the last evidence that there is: so when ctx ends before it answers, it
// is given the time to, and is used by nobody until then.
func (s *search) ask(ctx context.Context, c *conn, query string) ([]string, error) {
	if !c.older {
		ctx, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		return c.query(ctx, query)
	}
	c.answered = make(chan struct{})
	var row []string
	var err error
	go func() {
		defer close(c.answered)
		ctx, cancel := context.WithTimeout(s.life, olderLimit)
		defer cancel()
		row, err = c.query(ctx, query)
	}()
	select {
	case <-c.answered:
		return row, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// giveBack gives back a connection that was lent, once it has answered.
func (c *conn) giveBack() {
	select {
	case <-c.answered:
		c.GiveBack()
	default:
		go func() {
			<-c.answered
			c.GiveBack()
		}()
	}
}

// query asks one question. A base that doesn't obey its context loses its socket when that ends.
func (c *conn) query(ctx context.Context, query string) ([]string, error) {
	stop := context.AfterFunc(ctx, func() { c.Socket().CloseFor(ctx.Err()) })
	defer func() {
		if !stop() {
			c.Socket().CloseFor(ctx.Err()) // before somebody else uses it
		}
	}()
	return c.Ask(ctx, query)
}

// open opens a connection of our own.
func (s *search) open(ctx context.Context) error {
	if s.fresh != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	c, err := s.pool.Fresh(ctx)
	if err != nil {
		return err
	}
	server, err := c.Identify(ctx, false, false)
	if err != nil {
		c.Close(func() {})
		return err
	}
	fresh := &conn{Lent: Lent{Conn: c, PID: server.PID}}
	c.OnSyncWait(func() { fresh.unsure.Store(true) })
	s.fresh = fresh
	return nil
}

// close closes it.
func (s *search) close() {
	if s.fresh != nil {
		s.fresh.Close(func() {})
		s.fresh = nil
	}
}
