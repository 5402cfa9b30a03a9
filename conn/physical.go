package conn

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqltext"
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
	toGo     *atomic.Int64  // see Route.Surplus; set when opened
	surplus  atomic.Bool    // it is one of those that go
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

// prepare prepares a statement on the base connection.
func (ph *physical) prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if ph.stmts == nil {
		return ph.features.Prepare(ctx, query)
	}
	return ph.base.Prepare(ctx, query)
}
