package conn

import (
	"context"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
)

// contextWatch ends a call of a base that reads on when the call's context has ended, as lib/pq does. Where we have what a cancel
// request needs the server is asked to cancel, and answers within cancel_timeout; else the base sends its own request and gets
// wire.CloseLimit for it. Then its socket is closed under it, with the context's error. It costs nothing with a base that obeys its
// context, nor with a context that can't end.
//
// The nil contextWatch is one that isn't needed.
type contextWatch struct {
	ctx    context.Context
	ph     *physical
	limit  time.Duration
	asks   bool        // we send the cancel request, and the base doesn't get to know of the context's end
	halt   func() bool // keeps ended from being called
	haltTx func() bool // the same for the transaction's context; nil if that isn't watched

	// mu guards what follows. It is held while the socket is closed, so that once stop has returned nothing more happens
	// to a connection that may be someone else's by now.
	mu      sync.Mutex
	over    bool
	expired bool // the socket was closed
	rows    bool // the call has returned, with rows that are still to be read
	idle    bool // nor does anybody now, as something else uses the connection
	timer   *time.Timer
	looked  time.Duration // when the socket had heard something last when it was looked; negative: it hasn't been
	pause   time.Duration // until it is looked again
	request *base.CancelRequest
}

// watch is to be called at the start of a call, which goes to the base with the context that it returns; it lasts until stop. Once
// the context has ended the base has the limit, if not less.
func (ph *physical) watch(ctx context.Context, limit time.Duration) (context.Context, *contextWatch) {
	if ph.obeys { // nothing more, so that it is inlined
		return ctx, nil
	}
	return ph.watchBoth(ctx, limit)
}

// watchBoth watches the call's context, and its transaction's.
func (ph *physical) watchBoth(ctx context.Context, limit time.Duration) (context.Context, *contextWatch) {
	if ctx.Done() == nil && ph.txCtx == nil {
		return ctx, nil
	}
	w := &contextWatch{ctx: ctx, ph: ph, limit: limit}
	if answer := ph.cancels.Allowed(); answer > 0 && limit > 0 {
		w.asks, w.limit = true, answer
	}
	w.mu.Lock() // the context may have ended already
	defer w.mu.Unlock()
	w.halt = context.AfterFunc(ctx, func() { w.ended(ctx) })
	if tx := ph.txCtx; tx != nil && tx != ctx {
		w.haltTx = context.AfterFunc(tx, func() { w.ended(tx) })
	}
	if w.asks {
		return context.WithoutCancel(ctx), w
	}
	return ctx, w
}

// stop ends it. Nothing happens to the socket after that.
func (w *contextWatch) stop() {
	if w != nil { // nothing more, so that it is inlined
		w.stopNow()
	}
}

func (w *contextWatch) stopNow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.halt()
	if w.haltTx != nil {
		w.haltTx()
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.request != nil {
		w.request.Stop(w.expired)
	}
}

// ended is called when the call's context has ended, or its transaction's.
func (w *contextWatch) ended(ctx context.Context) {
	if w.begin() && w.limit > 0 && !w.asks {
		// The call itself comes back only later.
		w.ph.pool.callFailed(ctx, w.ph, ctx.Err())
	}
}

func (w *contextWatch) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || w.timer != nil {
		return false
	}
	switch {
	case w.asks && w.rows:
		w.looked, w.pause = -1, firstLook
		w.timer = time.AfterFunc(firstLook, w.look)
	default:
		w.beginNow()
	}
	return true
}

// beginNow asks the server, which has the limit to answer.
func (w *contextWatch) beginNow() {
	if w.asks {
		w.request = w.ph.cancels.Start()
	}
	w.timer = time.AfterFunc(w.limit, w.lost)
}

// firstLook is how soon it is looked whether rows are being read. It is looked again after twice as long each time, up to longestLook.
const (
	firstLook   = time.Millisecond
	longestLook = 100 * time.Millisecond
)

// look begins once the rows are being read. Of rows one can't see whether they were closed, as a call's are before its context ends in
// most programs: then there is nothing to cancel. Database/sql closes them when their context ends, unless they are scanned at that moment, and to
// close them lib/pq reads to their end.
func (w *contextWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	heard := w.ph.sock.Heard()
	switch {
	case w.over:
	case w.idle:
		w.timer.Reset(w.pause)
	case w.ph.sock.Waiting(), w.looked >= 0 && heard > w.looked:
		w.beginNow()
	default:
		w.looked, w.pause = heard, min(2*w.pause, longestLook)
		w.timer.Reset(w.pause)
	}
}

// aside runs what uses the connection between two calls, and reads no rows.
func (w *contextWatch) aside(f func() error) error {
	if w == nil {
		return f()
	}
	w.putAside(true)
	defer w.putAside(false)
	return f()
}

func (w *contextWatch) putAside(aside bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle, w.looked = aside, w.ph.sock.Heard()
}

// lost closes the socket. Of rows one can't see whether they are being read or were closed; but database/sql closes them
// when their context ends, and to close them lib/pq reads to their end. So when nobody is reading, nor was a moment ago,
// they are done with.
func (w *contextWatch) lost() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over:
	case !w.rows || w.ph.sock.Waiting():
		w.over, w.expired = true, true
		w.ph.sock.CloseFor(w.why())
	case clock.Now()-w.ph.sock.Heard() < w.limit:
		w.timer.Reset(w.limit / 10)
	default:
		w.over = true
		if w.request != nil {
			w.request.Stop(false)
		}
	}
}

// why is the error of the context that has ended.
func (w *contextWatch) why() error {
	if err := w.ctx.Err(); err != nil || w.ph.txCtx == nil {
		return err
	}
	return w.ph.txCtx.Err()
}

// keepFor leaves the watch of a call that returned rows in place while they are read: until the connection's next
// call, or its check-in.
func (w *contextWatch) keepFor(ph *physical) {
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

// doneWatching ends what watches the rows of the last call, and a transaction.
func (ph *physical) doneWatching() {
	ph.doneReading()
	ph.doneWithRows()
	ph.txCtx = nil
}
