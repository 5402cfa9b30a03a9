package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"strings"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/sqltext"
)

// kind is what a call asks of the server, as far as its loss is concerned.
type kind int

const (
	statement kind = iota
	commit
	rollback
	harmless // BEGIN, PREPARE, a ping: whether it ran makes no difference
)

// follow keeps up with what a successful text may have done to the session.
func (c *Conn) follow(ctx context.Context, ph *physical, query string) {
	c.tx.attempt.ran(query, nil)
	switch {
	case ph.tracksTx && sqltext.TouchesTx(query):
		ph.tx = sqltext.TxAfter(query, ph.tx)
	case ph.tx == sqltext.TxReadOnly && sqltext.MayAllowWrites(query):
		ph.tx = sqltext.TxReadWrite
	}
	if sqltext.ForgetsStatements(query) {
		_ = ph.forgotten(ctx)
	}
}

// verdict turns what the base driver said of a call into what the caller is told. It is where the promise is kept that
// database/sql gets driver.ErrBadConn, and so tries again, only for what never left.
func (c *Conn) verdict(ctx context.Context, ph *physical, mark int64, what kind, query string, err error) error {
	err = c.judge(ctx, ph, mark, what, query, err)
	if err != nil {
		c.pool.countError(ctx, err)
	}
	if what == statement {
		c.tx.attempt.ran(query, err)
	}
	return err
}

func (c *Conn) judge(ctx context.Context, ph *physical, mark int64, what kind, query string, err error) error {
	if ph.syncWait.Swap(false) && err == nil {
		return &LostError{Kind: ErrOutcomeUnknown, Endpoint: ph.endpoint.Name, Err: sqlstate.ErrSyncWait}
	}
	if err == nil || err == driver.ErrSkip {
		return err
	}
	if !ph.base.Known() {
		return err // it knows best
	}
	ctxErr := ctx.Err()
	answered, sent := ph.answered(err), ph.base.Sent(mark)
	if (!sent || !ph.base.Counts()) && ph.base.Busy() {
		return errRowsOpen
	}
	if ph.idledOut(err) {
		sent = false
	}
	if base.EndsSession(err) && !ph.lost() {
		ph.base.Kill(err) // lib/pq doesn't know it for the end in other languages than English, and would use the connection again
	}
	// An error of the base's own on a connection that goes on (an argument that it can't encode) says nothing of the server.
	telling := ctxErr != nil || !answered || sqlstate.Of(err) != ""
	if telling && (ph.tx != sqltext.TxReadOnly || sqlstate.Of(err) != sqlstate.ReadOnly) {
		c.pool.callFailed(ctx, ph, err)
	}
	if ctxErr != nil && ph.obeys && !ph.lost() && errors.Is(err, driver.ErrBadConn) {
		return ctxErr // pgx looks at the context once more between preparing a statement and running it
	}
	if ctxErr != nil && !sent && (!answered || errors.Is(err, ctxErr)) {
		return ctxErr
	}
	if answered {
		if what == statement && ph.tracksTx && sqltext.TouchesTx(query) && sqltext.HasTxVerb(query) {
			ph.tx = sqltext.TxUnclear
		}
		ended := ctx
		if ctxErr == nil && ph.txCtx != nil {
			ended = ph.txCtx
		}
		if endErr := ended.Err(); endErr != nil && sqlstate.Of(err) == sqlstate.QueryCanceled && !errors.Is(err, endErr) {
			ph.cancelled = true
			return &base.EndedError{Err: err, Ctx: endErr, Deadline: ph.base.DeadlineError(ended)}
		}
		return err
	}

	inTx := ph.inTx()
	if !sent || what == harmless {
		switch {
		case inTx == sqltext.TxUnclear:
			return ph.lostError(ErrOutcomeUnknown, err, ctxErr)
		case inTx != sqltext.TxNone:
			return ph.lostError(ErrTxLost, err, ctxErr)
		case ctxErr != nil:
			return ctxErr
		default:
			return driver.ErrBadConn
		}
	}
	// A server in recovery writes nothing, nor does a transaction that was begun there. What came outside of one may have found the server
	// promoted. The end of a READ ONLY transaction may write: NOTIFY is allowed in one.
	inOne := (inTx == sqltext.TxReadWrite || inTx == sqltext.TxReadOnly) && !sqltext.MayCommit(query)
	if ph.onStandby() && (inOne || c.pool.opts.ReadOnly || inTx == sqltext.TxNone && !sqltext.MayWrite(query)) {
		return quiet(err, ph.sock.Broken())
	}
	switch {
	case what == rollback:
		return ph.lostError(ErrTxLost, err, ctxErr)
	case what == commit:
		return ph.lostError(ErrOutcomeUnknown, err, ctxErr)
	case inOne:
		return ph.lostError(ErrTxLost, err, ctxErr)
	default:
		return ph.lostError(ErrOutcomeUnknown, err, ctxErr)
	}
}

// errRowsOpen is what a call is told that pgx has refused because the rows of an earlier one are still open; pgx's stdlib says
// driver.ErrBadConn, for which sql.Conn waits until they are closed, and closes the connection.
var errRowsOpen = errors.New("managedpg: connection is busy: the rows of an earlier query on it are still open")

// idledOut says that the server ended the session before it read the call: PostgreSQL raises these two only while it waits for a
// command, and the last time right after one has arrived and before it runs (PostgresMain in postgres.c, steps 3 to 5). With
// FATAL, as an error of that SQLSTATE can be raised by a statement too. lib/pq keeps a FATAL error to itself, but the socket saw it.
func (ph *physical) idledOut(err error) bool {
	switch sqlstate.Of(err) {
	case sqlstate.IdleSessionTimeout, sqlstate.IdleInTransactionTimeout:
		return base.Severity(err) == "FATAL"
	default:
		return ph.sock.Idled()
	}
}

// answered says whether the call came to its end: the server said ERROR, or it didn't get as far as the server, and the
// session goes on.
func (ph *physical) answered(err error) bool {
	if base.Severity(err) == "ERROR" {
		return true
	}
	return !base.EndsSession(err) && !ph.lost() && !errors.Is(err, driver.ErrBadConn) && !ph.ended(err)
}

// ended says whether err is the end of the stream, of which the socket knows nothing when TLS says so.
func (ph *physical) ended(err error) bool {
	over := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	return over && ph.features.Validator != nil && !ph.features.Validator.IsValid()
}

func (ph *physical) lostError(kind, err, ctxErr error) error {
	err = quiet(err, ph.sock.Broken())
	if ctxErr != nil && !errors.Is(err, ctxErr) {
		err = &base.EndedError{Err: err, Ctx: ctxErr}
	}
	return &LostError{Kind: kind, Endpoint: ph.endpoint.Name, Err: err}
}

// quiet is err in a form in which errors.Is doesn't find driver.ErrBadConn: the cause where there is one, else its text.
func quiet(err, cause error) error {
	switch {
	case !errors.Is(err, driver.ErrBadConn):
		return err
	case cause != nil && !errors.Is(cause, driver.ErrBadConn):
		return cause
	default:
		return errors.New(strings.TrimPrefix(err.Error(), "driver: "))
	}
}
