package conn

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Reclaim takes a checkout back from who holds it: for leak.Options.Reclaim, whose holder is what lend left with the
// tracker. It returns false if the checkout has ended meanwhile or its holder is at work: slow isn't abandoned.
//
// The holder keeps a logical connection that owns nothing; its next call gets the ReclaimedError, as do Rows that are
// read further. The permit is free once the socket is closed, which happens from here, not when the holder returns.
func Reclaim(holder any, checkout uint64, r leak.Report) bool {
	ph := holder.(*physical)
	c := ph.user.Load()
	if c == nil || !c.life.reclaim() {
		return false
	}
	if c.phys != ph || ph.checkout != checkout || ph.atWork(c.pool.opts.ReclaimAfter) {
		c.life.spare()
		return false
	}
	reason := &ReclaimedError{Report: r}
	if ph.sock != nil {
		ph.sock.refuse(reason)
	}
	if ph.cancelRows != nil {
		ph.cancelRows(reason)
	}
	c.life.reclaimed(reason)
	c.pool.takeBack(ph, now())
	c.pool.forget(ph)
	if c.pool.governed {
		c.pool.lending.Taken()
	}
	go ph.abandon(func() {
		c.pool.Recorder.Closed(stats.ClosedReclaimed)
		if c.pool.governed {
			c.pool.lending.Gone()
		}
	})
	return true
}

// use is how Reclaim tells a holder at work from one that has abandoned the connection, although no call is in progress:
// it reads rows, which aren't ours, or uses what sql.Conn.Raw showed it. The socket is ours, though.
type use struct {
	heard     int64 // the socket's when the last call returned
	returning bool  // the call in progress has returned rows
	rows      bool  // the last one had
}

// paused is called at the end of a call, and at the checkout.
func (u *use) paused(s *socket) {
	if s != nil {
		u.heard = s.heard.Load()
	}
	u.rows, u.returning = u.returning, false
}

// atWork says whether somebody waits at the socket now, or has heard from the server since the last call returned, and within
// the time that makes a holder suspicious.
func (ph *physical) atWork(quiet time.Duration) bool {
	u, s := &ph.use, ph.sock
	if s == nil {
		return false
	}
	waits := s.traffic.waiting() > 0 && u.rows
	if s.throughCalls {
		waits = s.traffic.ofCalls() > 0
	}
	heard := s.heard.Load()
	return waits || heard > u.heard && now()-time.Duration(heard) < quiet
}

// callReader is what pgx's calls read through. Under it pgx may go on reading the socket in the background after a write
// that took long (its bgreader), even on a connection that nobody uses; so that somebody reads the socket does not mean
// that anybody waits.
type callReader struct {
	io.Reader
	sock *socket
}

func (r callReader) Read(b []byte) (int, error) {
	if r.Reader == io.Reader(r.sock) {
		return r.sock.read(b, underWay|forCall)
	}
	r.sock.traffic.begin(forCall)
	defer r.sock.traffic.end(forCall)
	return r.Reader.Read(b)
}

// readsOfCalls makes pgx read through a callReader.
func readsOfCalls(build pgconn.BuildFrontendFunc) pgconn.BuildFrontendFunc {
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		if s := socketUnder(w); s != nil {
			s.throughCalls = true
			r = callReader{r, s}
		}
		return build(r, w)
	}
}

// socketUnder finds our socket under a connection, as rawConn finds the system's.
func socketUnder(c any) *socket {
	for {
		switch under := c.(type) {
		case *socket:
			return under
		case interface{ NetConn() net.Conn }:
			c = under.NetConn()
		default:
			return nil
		}
	}
}

// cancelAfter is how long the server is given to notice by itself that its client has hung up, as it does at once unless
// rows that were left open keep it at work.
const cancelAfter = 50 * time.Millisecond

// abandon ends a connection from outside; its base connection can't be told to close, as somebody may still use it. A
// server that is at work is asked to stop. It is waited for, so that its session is gone when then lets another one take
// its place.
func (ph *physical) abandon(then func()) {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	switch {
	case ph.sock != nil:
		if ph.pgx != nil {
			late := time.AfterFunc(cancelAfter, func() { _ = ph.pgx.Conn().PgConn().CancelRequest(ctx) })
			defer late.Stop()
		}
		ph.sock.whenClosed(then)
		ph.sock.hangUp(ctx)
		return
	case ph.pgx != nil:
		_ = ph.pgx.Conn().PgConn().CancelRequest(ctx)
		_ = ph.pgx.Conn().PgConn().Conn().Close()
	}
	then()
}

// cancellable is the context for a call that returns rows, and what ends them. lib/pq sends a cancel request when the
// context of a call ends, and has no other way to be asked for one.
func (ph *physical) cancellable(ctx context.Context, p *Pool) (context.Context, context.CancelCauseFunc) {
	if !ph.endpoint.deaf || p.opts.ReclaimAfter <= 0 || ph.slot == nil {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return reclaimable{ctx}, cancel
}

// hasRows is called when a call has returned rows: what ended the rows before, which are done with, is no longer needed.
func (ph *physical) hasRows(cancel context.CancelCauseFunc) {
	ph.doneWithRows()
	ph.cancelRows = cancel
	ph.use.returning = true
	ph.gaveRows = true
}

func (ph *physical) doneWithRows() {
	if ph.cancelRows != nil {
		ph.cancelRows(nil)
		ph.cancelRows = nil
	}
}

// reclaimable is a context whose error, after a reclaim, is what the holder is to be told.
type reclaimable struct{ context.Context }

func (r reclaimable) Err() error {
	var reason *ReclaimedError
	if errors.As(context.Cause(r.Context), &reason) {
		return reason
	}
	return r.Context.Err()
}
