package conn

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/internal/wire"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// physical is a connection of the base driver and what the pool knows of it. Between checkout and check-in it belongs to
// one logical connection, whose calls database/sql serialises. What each call looks at stands together.
type physical struct {
	origin
	link
	checkouts
	session
}

// link is the connection itself. It is set when the connection is opened.
type link struct {
	base     base.Conn
	features *base.Features // base's, as are those that follow
	sock     *wire.Socket
	cancels  *base.Cancels
	obeys    bool // its context
	keepsCtx bool // BEGIN's, for COMMIT and ROLLBACK too: it is pgx
	quiet    bool // it obeys, and Reclaim doesn't come: nobody else looks at its calls. A pool and its pool for reads agree on the latter
	tracksTx bool // session.tx says what its transaction is, as the base can't tell
	once     bool // it is for one user: DISCARD ALL would undo what pgx's AfterConnect has set, which can't be run again
}

// origin is where a connection leads and what it was opened for. It is set when the connection is opened.
type origin struct {
	pool     *Pool
	endpoint *base.Endpoint
	member   int // the endpoint's number with the Router
	id       uint64
	server   base.Server       // as it was then
	opened   time.Duration     // by clock.Now()
	expires  time.Duration     // when pool_recycle ends it, if ever
	drains   uint64            // the pool's count of drains then
	signals  *evidence.Signals // the Router's about the endpoint
	epoch    uint64            // the signals' then
	slot     *leak.Slot        // nil without leak detection
}

// checkouts are who uses a connection, and who did. Fields without a comment are only touched by that one, or by the pool while the
// connection is free.
type checkouts struct {
	checkedOut time.Duration        // when it was checked out, by clock.Now()
	checkout   uint64               // the number of the checkout, with leak detection
	user       atomic.Pointer[Conn] // who has it or had it last; for Reclaim, and for sweepParked
	use        use                  // by its holder, for Reclaim
	freeSince  time.Duration        // when it was checked in, or opened
	counts     *stats.ConnRecorder  // of them; set when the connection is opened
}

// session is the server's session, as far as it is known. It is only touched by who has the connection checked out, or by the pool while
// it is free.
type session struct {
	stmts      *stmtCache              // nil until there is a statement to keep
	generation uint32                  // counts how often the server has forgotten the prepared statements
	tx         sqltext.Tx              // of a base that can't tell: see inTx
	used       bool                    // has been checked out before: its session may need a reset
	cancelled  bool                    // the server has confirmed the cancel request that is pending
	gaveRows   bool                    // the last call has returned rows
	syncWait   atomic.Bool             // a COMMIT's wait for a synchronous standby was cancelled; set by the notice handler
	surplus    atomic.Bool             // it is one of those that go, see evidence.Signals
	reading    *contextWatch           // with the rows of the last call, which may still be read
	txCtx      context.Context         // the transaction's, which ends each of its calls with lib/pq; nil where lib/pq sees to that itself
	identity   *resolve.Session        // what the server said of itself, if InTx has had it asked
	cancelRows context.CancelCauseFunc // ends the rows of the last call, if Reclaim may want to; see watchRows
}

// isOver says of a text that the base has run without an error, in a quick call, that nothing has to be seen to after it.
func (ph *physical) isOver(query string) bool {
	return !ph.syncWait.Load() && !sqltext.MayForget(query)
}

// sound says whether the session may have a next user. It doesn't block.
func (ph *physical) sound() bool {
	return !ph.once && !ph.lost() && ph.outsideTx() &&
		(ph.features.Validator == nil || ph.features.Validator.IsValid())
}

// whyUnsound is why a session that isn't sound is closed.
func (ph *physical) whyUnsound() stats.Closed {
	if ph.lost() {
		return stats.ClosedBroken
	}
	return stats.ClosedByCaller
}

// lost says whether the connection is over, as far as one can tell without asking the server.
func (ph *physical) lost() bool { return ph.sock.IsBroken() || ph.base.Closed() }

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

// outsideTx says that inTx is sqltext.TxNone.
func (ph *physical) outsideTx() bool {
	status := ph.base.TxStatus()
	return status == base.TxNone || status == base.TxUnknown && ph.tx == sqltext.TxNone
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

// fence lets nothing more be sent on the connection, neither by a call to come nor by one that is under way, which gets wire.CloseLimit
// for the answer to what it has sent.
func (ph *physical) fence(reason error) {
	if ph.sock == nil {
		ph.base.Kill(reason)
	} else if ph.sock.RefuseWrites(reason) {
		time.AfterFunc(wire.CloseLimit, func() { ph.base.Kill(reason) })
	}
}

// prepare prepares a statement on the base connection.
func (ph *physical) prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if ph.stmts == nil {
		return ph.features.Prepare(ctx, query)
	}
	return ph.base.Prepare(ctx, query)
}
