package conn

import (
	"context"
	"sync"
	"time"
)

// patience ends a call of a base that reads on when the call's context has ended, as lib/pq does: it relies on a cancel
// request, which a hung server never answers. The base gets closeLimit for that; then its socket is closed under it, with
// the context's error. It costs nothing with a base that obeys its context, nor with a context that can't end.
//
// The nil patience is one that isn't needed.
type patience struct {
	ctx   context.Context
	ph    *physical
	sock  *socket
	limit time.Duration
	halt  func() bool // keeps ended from being called

	// mu guards what follows. It is held while the socket is closed, so that once stop has returned nothing more happens
	// to a connection that may be someone else's by now.
	mu    sync.Mutex
	over  bool
	rows  bool // the call has returned, with rows that are still to be read
	timer *time.Timer
}

// bear is to be called at the start of a call; the patience lasts until stop.
func (ph *physical) bear(ctx context.Context, limit time.Duration) *patience {
	if !ph.endpoint.deaf || ph.sock == nil || ctx.Done() == nil {
		return nil
	}
	w := &patience{ctx: ctx, ph: ph, sock: ph.sock, limit: limit}
	w.mu.Lock() // the context may have ended already
	defer w.mu.Unlock()
	w.halt = context.AfterFunc(ctx, w.ended)
	return w
}

// stop ends it. Nothing happens to the socket after that.
func (w *patience) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.halt()
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *patience) ended() {
	if w.begin() && w.limit > 0 {
		// The call itself comes back only later.
		w.ph.pool.callFailed(w.ctx, w.ph, w.ctx.Err())
	}
}

func (w *patience) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.timer = time.AfterFunc(w.limit, w.lost)
	}
	return !w.over
}

// lost closes the socket. Of rows one can't see whether they are being read or were closed; but database/sql closes them
// when their context ends, and to close them lib/pq reads to their end. So when nobody is reading, nor was a moment ago,
// they are done with.
func (w *patience) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case !w.rows || w.sock.traffic.waiting() > 0:
		w.over = true
		w.sock.closeFor(w.ctx.Err())
	case now()-time.Duration(w.sock.heard.Load()) < w.limit:
		w.timer.Reset(w.limit / 10)
	default:
		w.over = true
	}
}

// keepFor leaves the patience of a call that returned rows in place while they are read: until the connection's next
// call, or its check-in.
func (w *patience) keepFor(ph *physical) {
	if w == nil {
		return
	}
	w.mu.Lock()
	w.rows = true
	w.mu.Unlock()
	ph.reading = w
}

// doneReading ends what keepFor left.
func (ph *physical) doneReading() {
	if ph.reading != nil {
		ph.reading.stop()
		ph.reading = nil
	}
}
