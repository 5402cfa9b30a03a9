package base

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/wire"
)

// Cancel requests: a context that ends in a call is passed on to the server, whose answer says what became of the statement
// and leaves the connection whole (PostgreSQL's "Canceling Requests in Progress", protocol-flow).

const (
	// maxCancels is how many cancel requests to one endpoint are under way at a time: each is a connection to it.
	maxCancels = 16
	// A request that comes before its statement does is lost, so it is sent again after resendFirst, then after twice as
	// long each time.
	resendFirst = 20 * time.Millisecond
	// After unansweredLimit calls in a row whose requests came to nothing, as through a pooler that doesn't pass them on, none
	// is sent to the endpoint for cancelPause.
	unansweredLimit = 3
	cancelPause     = 30 * time.Second
)

// canceller is what the cancel requests to one endpoint have in common.
type canceller struct {
	timeout time.Duration // cancel_timeout; 0: it sends none
	slots   chan struct{} // one for each request under way

	unanswered  atomic.Int32 // calls in a row whose requests came to nothing
	pausedUntil atomic.Int64 // by clock.Now()
}

func newCanceller(timeout time.Duration) *canceller {
	return &canceller{timeout: timeout, slots: make(chan struct{}, maxCancels)}
}

// Cancels are the cancel requests of one connection.
type Cancels struct {
	// Counter is told of each call for which requests are sent, and of each that got no answer; nil: nobody counts.
	Counter interface{ CountCancel(CancelEvent) }

	shown   atomic.Bool                 // see Show
	to      *canceller                  // nil: it sends none
	send    func(context.Context) error // makes one request, and says whether the server has taken it; nil: it can't
	pending atomic.Pointer[CancelRequest]
}

// CancelEvent is what Cancels.Counter is told.
type CancelEvent int

// Events.
const (
	CancelSent CancelEvent = iota
	CancelUnanswered
)

// Show tells that the program is shown the driver's own connection, or that it isn't any more. What it calls on that ends with its
// context as the driver ends it: the answer to a cancel request would reach it without the context's error, and a wait for
// notifications has asked the server nothing that it could cancel.
func (c *Cancels) Show(shown bool) {
	if c.shown.Load() != shown {
		c.shown.Store(shown)
	}
}

// Shown is what Show was told last.
func (c *Cancels) Shown() bool { return c.shown.Load() }

// Allowed is how long to wait for the server's answer to a cancel request; 0: send none.
func (c *Cancels) Allowed() time.Duration {
	if c.shown.Load() || c.to == nil || c.send == nil || c.to.timeout <= 0 || time.Duration(c.to.pausedUntil.Load()) > clock.Now() {
		return 0
	}
	return c.to.timeout
}

// Start asks the server to cancel, again and again until the request is stopped.
func (c *Cancels) Start() *CancelRequest {
	r := &CancelRequest{cancels: c, stopped: make(chan struct{}), done: make(chan struct{})}
	c.counted(CancelSent)
	go r.run()
	return r
}

func (c *Cancels) counted(what CancelEvent) {
	if c.Counter != nil {
		c.Counter.CountCancel(what)
	}
}

// Pending is the request of the connection's last call, nil if there was none or it has been forgotten.
func (c *Cancels) Pending() *CancelRequest { return c.pending.Load() }

// Forget forgets it: the connection is fit for its next statement, or closed.
func (c *Cancels) Forget() { c.pending.Store(nil) }

// CancelRequest is what is under way for one call whose context has ended. The call stops it when it returns; a request that is
// still on its way then could hit the connection's next statement, so that waits for Done.
type CancelRequest struct {
	cancels *Cancels
	once    sync.Once
	stopped chan struct{}
	done    chan struct{}
	clean   bool
}

// Done is closed when no request is under way any more.
func (r *CancelRequest) Done() <-chan struct{} { return r.done }

// Clean says, after Done, that the server has taken each request.
func (r *CancelRequest) Clean() bool { return r.clean }

func (r *CancelRequest) run() {
	defer close(r.done)
	for wait := resendFirst; ; wait *= 2 {
		select {
		case r.cancels.to.slots <- struct{}{}:
		case <-r.stopped:
			r.clean = true
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), wire.CloseLimit)
		err := r.cancels.send(ctx)
		cancel()
		<-r.cancels.to.slots
		if err != nil {
			return
		}
		pause := time.NewTimer(wait)
		select {
		case <-r.stopped:
			pause.Stop()
			r.clean = true
			return
		case <-pause.C:
		}
	}
}

// Stop is called when the call has ended: no further request is sent, and this one is the connection's pending one. Lost says that the
// call got no answer in time.
func (r *CancelRequest) Stop(lost bool) {
	r.cancels.pending.Store(r)
	r.once.Do(func() {
		close(r.stopped)
		c := r.cancels.to
		if !lost {
			c.unanswered.Store(0)
			return
		}
		r.cancels.counted(CancelUnanswered)
		if c.unanswered.Add(1) >= unansweredLimit {
			c.unanswered.Store(0)
			c.pausedUntil.Store(int64(clock.Now() + cancelPause))
		}
	})
}

// ErrCancelAstray is why a connection is closed of which nobody knows whether a cancel request will still reach it.
var ErrCancelAstray = errors.New("managedpg: a cancel request for this connection was not seen to its end")
