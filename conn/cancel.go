package conn

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/stats"
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

// canceller sends cancel requests to one endpoint.
type canceller struct {
	timeout time.Duration // cancel_timeout; 0: it sends none
	slots   chan struct{} // one for each request under way

	unanswered  atomic.Int32 // calls in a row whose requests came to nothing
	pausedUntil atomic.Int64 // by now()
}

func newCanceller(timeout time.Duration) *canceller {
	return &canceller{timeout: timeout, slots: make(chan struct{}, maxCancels)}
}

// allowed is how long to wait for the server's answer to a cancel request; 0: send none.
func (c *canceller) allowed() time.Duration {
	if c.timeout <= 0 || time.Duration(c.pausedUntil.Load()) > now() {
		return 0
	}
	return c.timeout
}

// Note says that cancel requests to the endpoint come to nothing; "" if they don't.
func (e *Endpoint) Note() string {
	if c := e.canceller; c == nil || time.Duration(c.pausedUntil.Load()) <= now() {
		return ""
	}
	return "cancel requests come to nothing, as through a pooler that doesn't pass them on: none is sent for a while, and a call that its context ends costs its connection"
}

// start asks the server to cancel, again and again until the request is stopped: send makes one request, and says whether the
// server has taken it.
func (c *canceller) start(recorder *stats.Recorder, send func(context.Context) error) *cancelRequest {
	r := &cancelRequest{canceller: c, recorder: recorder, began: now(), stopped: make(chan struct{}), done: make(chan struct{})}
	r.count(stats.CancelSent)
	go r.run(send)
	return r
}

// cancelRequest is what is under way for one call whose context has ended. The call stops it when it returns; a request that is
// still on its way then could hit the connection's next statement, so that waits for done.
type cancelRequest struct {
	canceller *canceller
	recorder  *stats.Recorder // nil while the connection isn't in a pool yet
	began     time.Duration
	once      sync.Once
	stopped   chan struct{}
	done      chan struct{} // closed when none is under way any more
	clean     bool          // each request was taken; read after done
}

func (r *cancelRequest) count(what stats.Cancel) {
	if r.recorder != nil {
		r.recorder.CountCancel(what)
	}
}

func (r *cancelRequest) run(send func(context.Context) error) {
	defer close(r.done)
	for wait := resendFirst; ; wait *= 2 {
		select {
		case r.canceller.slots <- struct{}{}:
		case <-r.stopped:
			r.clean = true
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		err := send(ctx)
		cancel()
		<-r.canceller.slots
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

// stop is called when the call has ended: no further request is sent. lost says that the call got no answer in time.
func (r *cancelRequest) stop(lost bool) {
	r.once.Do(func() {
		close(r.stopped)
		c := r.canceller
		if !lost {
			c.unanswered.Store(0)
			return
		}
		r.count(stats.CancelUnanswered)
		if c.unanswered.Add(1) >= unansweredLimit {
			c.unanswered.Store(0)
			c.pausedUntil.Store(int64(now() + cancelPause))
		}
	})
}

// pendingCancel is the request of the connection's last call, nil if there was none or it has been seen to.
func (ph *physical) pendingCancel() *cancelRequest {
	if ph.watcher != nil {
		return ph.watcher.request
	}
	return ph.request
}

func (ph *physical) forgetCancel() {
	ph.request = nil
	if ph.watcher != nil {
		ph.watcher.request = nil
	}
}

// settle makes the connection fit for its next statement after a cancel request: that was read to its end, so the signal has
// been sent, and one round trip takes it. PostgreSQL drops a cancel that arrives while it waits for a command (ProcessInterrupts
// in postgres.c, when DoingCommandRead is set). A connection that can't be made fit is closed.
func (ph *physical) settle(ctx context.Context) error {
	r := ph.pendingCancel()
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	ph.forgetCancel()
	switch {
	case ph.cancelled:
		r.count(stats.CancelConfirmed)
	case !ph.lost() && !ph.gaveRows: // what their reader was told isn't known here
		r.count(stats.CancelTooLate)
	}
	ph.cancelled = false
	if ph.lost() {
		return nil // the next call finds out
	}
	if !r.clean {
		ph.kill(errCancelAstray)
		return nil
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer cancel()
	if err := ph.roundTrip(limit); err != nil && sqlstate.Of(err) != sqlstate.QueryCanceled {
		ph.kill(err)
	}
	return nil
}

// errCancelAstray closes a connection of which nobody knows whether a cancel request will still reach it.
var errCancelAstray = errors.New("managedpg: a cancel request for this connection was not seen to its end")

// roundTrip lets the server answer once, to an empty statement.
func (ph *physical) roundTrip(ctx context.Context) error {
	if ph.pgx != nil {
		return ph.pgx.Conn().PgConn().Exec(ctx, "").Close()
	}
	return ph.run(ctx, ";")
}

// backendKey is what the server gave the session for cancel requests: BackendKeyData's content.
type backendKey []byte

// ownCancel is what a cancel request of our own needs.
type ownCancel struct {
	startup *startup   // reads along for key until it has it; only touched by who reads
	key     backendKey // nil if it isn't known; set while the connection is opened
	sealed  bool       // it can't be, as the connection is encrypted
	role    role       // what the server said in the startup
	redial  func(context.Context) (net.Conn, error)
}

// told is what the server said of itself in the startup; false if our socket couldn't read it.
func (s *socket) told() (Server, bool) {
	if s == nil || s.own == nil || s.own.sealed {
		return Server{}, false
	}
	server := Server{Standby: s.own.role.standby, ReadOnly: s.own.role.readOnly}
	if len(s.own.key) >= 4 {
		server.PID = binary.BigEndian.Uint32(s.own.key)
	}
	return server, true
}

func (o *ownCancel) readAlong(b []byte) {
	if key, over := o.startup.read(b); over {
		o.key, o.sealed, o.role, o.startup = key, o.startup.sealed, o.startup.role, nil
	}
}

// cancelRequestCode stands in a CancelRequest in the place of a protocol version.
const cancelRequestCode = 80877102

// cancel sends a cancel request of our own, for a base driver that has no call for it, and reads the answer to its end: then
// the server has sent the signal.
func (o *ownCancel) cancel(ctx context.Context) error {
	c, err := o.redial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(o.key)))
	b = binary.BigEndian.AppendUint32(b, cancelRequestCode)
	if _, err := c.Write(append(b, o.key...)); err != nil {
		return err
	}
	return readToEnd(c)
}

// readToEnd waits for the server to close a cancel request's connection.
func readToEnd(c net.Conn) error {
	var b [64]byte
	for {
		if _, err := c.Read(b[:]); endOfStream(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// endOfStream says that the server has closed the connection, in order or with a reset.
func endOfStream(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }
