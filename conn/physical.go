package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/limit"
	"github.com/managedpg/managedpg/internal/pool"
	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/internal/usercode"
	"github.com/managedpg/managedpg/internal/wire"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// physical is a connection of the base driver and what the pool knows of it. Between checkout and check-in it belongs to
// one logical connection, whose calls database/sql serialises; its fields without a comment are only touched by it, or
// by the pool while it is free.
type physical struct {
	base     base.Conn // set when opened, as are those that follow, which it has too
	features *base.Features
	sock     *wire.Socket
	cancels  *base.Cancels
	obeys    bool           // base.ObeysContext
	tracksTx bool           // tx says what its transaction is, as the base can't tell
	endpoint *base.Endpoint // set when opened
	member   int            // the endpoint's number with the Router; set when opened
	epoch    uint64         // the endpoint's epoch then; set when opened
	epochNow *atomic.Uint64 // what it is now; set when opened
	load     *atomic.Int64  // see Route
	surplus  atomic.Bool    // others have too few: it goes when it is given back
	hung     *atomic.Bool   // see Route; set when opened
	drains   uint64         // the pool's count of drains then; set when opened
	id       uint64         // set when opened
	server   base.Server    // as it was when opened
	opened   time.Duration  // when it was opened, by clock.Now(); set then
	slot     *leak.Slot     // nil without leak detection; set when opened

	expires    time.Duration        // when pool_recycle ends it, if at all, by clock.Now(); set when opened
	checkedOut time.Duration        // when it was checked out, by clock.Now()
	checkout   uint64               // the number of the checkout, with leak detection
	user       atomic.Pointer[Conn] // who has it or had it last; for Reclaim, and for sweepParked
	use        use                  // by its holder, for Reclaim
	freeSince  time.Duration        // when it was checked in, or opened
	used       bool                 // has been checked out before: its session may need a reset
	once       bool                 // is for one user: DISCARD ALL would undo what pgx's AfterConnect has set, which can't be run again. Set when opened

	cancelRows context.CancelCauseFunc // ends the rows of the last call, if Reclaim may want to; see cancellable
	condemned  atomic.Pointer[error]   // why nothing more may be sent on it; set from outside
	pool       *Pool                   // set when opened
	txCtx      context.Context         // the transaction's, which ends each of its calls with lib/pq; nil where lib/pq sees to that itself
	tx         sqltext.Tx              // of a base that can't tell: see inTx
	session    *resolve.Session        // what the server said of itself, if InTx has had it asked
	cancelled  bool                    // the server has confirmed the cancel request that is pending
	gaveRows   bool                    // the last call has returned rows
	reading    *contextWatch           // with the rows of the last call, which may still be read
	generation int                     // counts how often the server has forgotten the prepared statements
	stmts      *stmtCache              // nil until there is a statement to keep
	syncWait   atomic.Bool             // a COMMIT's wait for a synchronous standby was cancelled; set by the notice handler
}

// justUsed is for how short a time a connection may have been free for a pre-ping to do without its look at the socket,
// which is a system call: no longer than the call's own bytes take to the server, during which it can die as well. A
// connection of the pool that was lost meanwhile ends that trust.
const justUsed = 20 * time.Microsecond

// idlePing is how long a connection may have been free before a pre-ping asks the server instead of the socket.
const idlePing = time.Second

// ready makes a free connection fit for its next user: pre-ping, the base's own reset, pool_reset. Any error means that
// the connection is not to be used; nothing of the user's has been sent on it.
func (ph *physical) ready(ctx context.Context, p *Pool, at time.Duration) error {
	if err := ph.settle(ctx); err != nil {
		return err
	}
	if p.opts.PrePing {
		if err := ph.prePing(ctx, p, at); err != nil {
			return err
		}
	}
	if ph.features.Resetter != nil {
		// Only ErrBadConn counts for database/sql too.
		if err := ph.features.Resetter.ResetSession(ctx); errors.Is(err, driver.ErrBadConn) {
			return err
		}
	}
	if p.opts.DiscardAll && ph.used {
		return ph.discardAll(ctx, p)
	}
	if ph.stmts.tidy(p.texts.freed.Load()); ph.lost() {
		return driver.ErrBadConn
	}
	return nil
}

// prePing finds a connection that died while it was free.
func (ph *physical) prePing(ctx context.Context, p *Pool, at time.Duration) error {
	hung := ph.hung.Load()
	if !hung && at-ph.freeSince < justUsed && p.lastLoss.Load() < int64(ph.freeSince) && !ph.lost() {
		return nil
	}
	switch seen := ph.sock.Peek(); {
	case seen == wire.PeekClosed:
		return driver.ErrBadConn
	case seen == wire.PeekUnread, hung, at-ph.freeSince > idlePing:
		if ph.features.Pinger == nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, p.opts.PingTimeout)
		defer cancel()
		ctx, watch := ph.watch(ctx, 0) // nothing can be lost
		defer watch.stop()
		err := ph.features.Pinger.Ping(ctx)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", pool.ErrSilent, err)
		}
		return err
	default:
		return nil
	}
}

// discardAll resets the whole session.
func (ph *physical) discardAll(ctx context.Context, p *Pool) error {
	ctx, watch := ph.watch(ctx, wire.CloseLimit)
	defer watch.stop()
	if err := ph.features.Run(ctx, "DISCARD ALL"); err != nil {
		return err
	}
	if err := ph.forgotten(ctx); err != nil {
		return err
	}
	if p.opts.OnConnect != nil {
		if err := p.onConnect(ctx, ph); err != nil {
			return err
		}
	}
	return p.makeReadOnly(ctx, ph)
}

// forgotten is to be called when the server has forgotten the session's prepared statements: it makes the base's cache and
// ours forget them too, and statements in use prepare themselves again.
func (ph *physical) forgotten(ctx context.Context) error {
	ph.generation++
	ph.stmts.clear()
	return ph.base.ForgetStatements(ctx)
}

// sound says whether the session may have a next user. It doesn't block.
func (ph *physical) sound() bool {
	if ph.once || ph.lost() || ph.inTx() != sqltext.TxNone {
		return false
	}
	return ph.features.Validator == nil || ph.features.Validator.IsValid()
}

// whyUnsound is why a session that isn't sound is closed.
func (ph *physical) whyUnsound() stats.Closed {
	if ph.lost() {
		return stats.ClosedBroken
	}
	return stats.ClosedByCaller
}

// lost says whether the connection is over, as far as one can tell without asking the server.
func (ph *physical) lost() bool {
	return ph.sock.Broken() != nil || ph.base.Closed()
}

// inTx is the transaction that the session is in: what the server said last, if the base tells, else what the calls that went
// through tell.
func (ph *physical) inTx() sqltext.Tx {
	switch ph.base.TxStatus() {
	case base.TxUnknown:
		return ph.tx
	case base.TxNone:
		return sqltext.TxNone
	default:
		if ph.tx == sqltext.TxReadOnly {
			return sqltext.TxReadOnly
		}
		return sqltext.TxReadWrite
	}
}

// onStandby says whether the server told that it is one, where nothing can be written. It may have been promoted since
// the connection was opened; pgx hears of that with the next answer.
func (ph *physical) onStandby() bool {
	return ph.server.Standby == base.Yes && ph.base.Standby() == base.Yes
}

// stuck says whether somebody waits for the server, and it has said nothing since then. Of a socket that isn't ours one
// can't tell.
func (ph *physical) stuck(since time.Time) bool {
	return ph.sock.Waiting() && since.After(clock.Time(ph.sock.Heard()))
}

// close ends the connection; then is called once its socket is closed, at most wire.CloseLimit later.
func (ph *physical) close(then func()) {
	if !ph.base.Known() {
		ph.stmts.close() // as database/sql does
	}
	ph.base.Close(then)
}

// condemn lets no further call be made on the connection, and gives one in progress wire.CloseLimit to end.
func (ph *physical) condemn(reason error) {
	if ph.condemned.CompareAndSwap(nil, &reason) {
		time.AfterFunc(wire.CloseLimit, func() { ph.base.Kill(reason) })
	}
}

func newPhysical(c base.Conn) *physical {
	return &physical{
		base: c, features: c.Features(), sock: c.Socket(), cancels: c.Cancels(),
		obeys: c.ObeysContext(), tracksTx: c.Known() && c.TxStatus() == base.TxUnknown,
	}
}

// prepare prepares a statement on the base connection.
func (ph *physical) prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if ph.stmts == nil {
		return ph.features.Prepare(ctx, query)
	}
	return ph.base.Prepare(ctx, query)
}

// open dials the endpoint and makes a physical connection of what it gets, if the router admits it.
func (p *Pool) open(ctx context.Context, to Route) (*physical, error) {
	start := clock.Now()
	c, err := to.Endpoint.Connect(ctx)
	if err != nil {
		return nil, err
	}
	ph := newPhysical(c)
	ph.pool = p
	ph.endpoint, ph.member, ph.epochNow, ph.hung, ph.load = to.Endpoint, to.Member, to.Epoch, to.Hung, to.Load
	ph.cancels.Count = p.countCancel
	if ph.once = p.opts.DiscardAll && c.HasHook(); ph.once {
		p.warnOfReset.Do(p.warnReset)
	}
	ready := false
	defer func() { // also when OnConnect panics
		if !ready {
			if ph.lost() {
				ph.base.Kill(net.ErrClosed) // pgx may go on in the background, and its place is free from now on
			}
			ph.close(func() {})
		}
	}()
	if err := p.prepare(ctx, ph, to.Moves); err != nil {
		return nil, err
	}
	ready = true
	if !ph.features.CanExec() {
		p.cantExec.Store(true)
	}
	if !ph.features.CanQuery() {
		p.cantQuery.Store(true)
	}
	ph.freeSince = clock.Now()
	ph.opened = ph.freeSince
	ph.id = p.lastID.Add(1)
	if p.opts.Recycle > 0 {
		ph.expires = ph.freeSince + p.opts.Recycle - p.jitter(p.opts.Recycle/10)
	}
	p.Recorder.Created(ph.freeSince - start)
	return ph, nil
}

// prepare makes a new connection ready for its first user.
func (p *Pool) prepare(ctx context.Context, ph *physical, moves bool) error {
	var err error
	if ph.server, err = ph.base.Identify(ctx, p.opts.Role, moves); err != nil {
		return err
	}
	if err := p.router.Admit(ctx, ph.server); err != nil {
		return err
	}
	ph.base.OnSyncWait(func() { ph.syncWait.Store(true) })
	if p.opts.OnConnect != nil {
		limit.Stop(ctx)
		ctx, watch := ph.watch(ctx, 0) // nothing can be lost
		defer watch.stop()
		if err := p.onConnect(ctx, ph); err != nil {
			return err
		}
	}
	return p.makeReadOnly(ctx, ph)
}

// onConnect calls the user's OnConnect, whose error is no evidence about the server.
func (p *Pool) onConnect(ctx context.Context, ph *physical) error {
	if err := p.opts.OnConnect(ctx, ph.base.Raw()); err != nil {
		return &usercode.Error{Err: err}
	}
	return nil
}

// end closes the connection and counts why; then, if not nil, is called once its socket is closed.
func (p *Pool) end(ph *physical, why stats.Closed, then func()) {
	if why == stats.ClosedBroken {
		p.lastLoss.Store(int64(clock.Now()))
	}
	p.forget(ph)
	p.event(context.Background(), "close", ph, "reason", why)
	ph.close(func() {
		p.Recorder.Closed(why)
		if then != nil {
			then()
		}
	})
}
