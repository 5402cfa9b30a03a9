package managedpg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/failover"
	internalconn "github.com/managedpg/managedpg/internal/conn"
	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// TxOptions are InTx's. Nil stands for the defaults.
type TxOptions struct {
	// TxOptions are the isolation level and READ ONLY, as in sql.DB's BeginTx.
	sql.TxOptions
	// Retries is how often the function may be run again, each time in a new transaction. 0, the default: it runs once.
	Retries int
	// ResolveCommit asks what became of a COMMIT that was sent and not answered. It costs a round trip before each COMMIT,
	// for the transaction's id. See InTx.
	ResolveCommit bool
}

// InTx runs fn in a transaction of db: it begins one, calls fn, commits when fn returns nil, and rolls back when fn returns
// an error or panics. An InTx that returns nil has committed. One that returns an error has not, unless errors.Is finds
// [ErrOutcomeUnknown] in it.
//
//	err := managedpg.InTx(ctx, db, &managedpg.TxOptions{Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
//		if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - $1 WHERE id = $2", 10, "a"); err != nil {
//			return err
//		}
//		_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + $1 WHERE id = $2", 10, "b")
//		return err
//	})
//
// # Retries
//
// fn may have effects outside the database, so it runs once unless opts.Retries allows more. It is run again, after a short
// random wait that grows from try to try, when the transaction has certainly left nothing behind and what ended it may not
// come back:
//
//   - a serialization failure (SQLSTATE 40001) or a deadlock (40P01), from a statement or from COMMIT;
//   - [ErrTxLost]: the connection, or the server, was lost before COMMIT was sent. The next try waits for a usable server as
//     any checkout does (failover_timeout), so after a failover it runs on the new primary;
//   - BEGIN met no server, where there is only one to try. Where there are several, failover_timeout has passed by then.
//
// What counts is the error that fn returns, so it must wrap (%w) what the statement said. It is never run again when COMMIT
// was sent and not answered (unless it was found not to be committed), READ ONLY or not, when ctx has ended, nor
// when a context's error is in the error: a deadline of fn's own is for fn to judge. When the tries are used up, the last
// one's error is returned.
//
// # When COMMIT is not answered
//
// Then it took place, or it didn't, and InTx returns ErrOutcomeUnknown. With opts.ResolveCommit it asks the server first, for
// 5 seconds at most and no longer than 1 second after ctx has ended (see conn.LostError's Resolve). If the transaction was
// committed InTx returns nil; if it was not, ErrTxLost, or fn runs again; else ErrOutcomeUnknown after all, with the
// transaction's id and why nobody could tell. It is never a guess: that a transaction was committed is believed only of a
// server that another connection of the pool, older than the COMMIT, shows not to have crashed since. A pool with a single
// connection has none, and of a pooler that shares connections (PgBouncer's pool_mode=transaction) one can't tell. What was
// not committed is found by any connection to the same server and timeline. A server lost for good leaves it unknown, and
// PostgreSQL before version 10 can't be asked, nor is a READ ONLY
// transaction's COMMIT asked for: it may have sent a NOTIFY, and it would need an id for the question.
//
// # What fn does, and what comes of it
//
//   - It panics, or ends its goroutine (runtime.Goexit, and so testing.T's FailNow): the transaction is rolled back, and the
//     panic goes on with its own stack.
//   - It returns an error: that error is returned. If it is the connection's, met while rows were read, ErrTxLost is added.
//   - It ignores a statement's error and returns nil: PostgreSQL commits no transaction in which a statement has failed, so
//     InTx returns an error, with that of the statement inside. A failure that fn has undone with ROLLBACK TO SAVEPOINT is
//     none. If the connection was lost, InTx returns ErrTxLost.
//   - It calls tx.Commit by itself: if that succeeded and fn returns nil, so does InTx. What fn returns otherwise is
//     returned, and fn is not run again.
//   - It calls tx.Rollback by itself and returns nil: that is an error, since nothing was committed.
//   - It ends the transaction by a text (tx.Exec("COMMIT")): InTx returns an error that says so, and fn is not run again.
//   - It calls InTx with the context that it was given and the same db: that is an error, at once. A transaction inside
//     could be neither: as a part of the outer one its nil would not mean committed, as one of its own it would wait for
//     rows that the outer one has locked, and would commit again with each retry. Functions that are to share a transaction
//     take the *sql.Tx; one that is meant to be apart is begun with db.BeginTx. InTx of another db is fine.
//
// # When ctx ends
//
// Before BEGIN, and while fn runs, the transaction is rolled back and nothing is committed, whatever fn returns: an error of
// its own, or nil, in place of which InTx returns the context's. fn's statements end with ctx if they are called with the
// context that fn is given. During COMMIT it depends on how far that has come: the context's error alone if COMMIT was not
// sent; ErrOutcomeUnknown, with the context's error inside, if it was sent and not answered.
//
// A db of another driver than managedpg can be used too. Then the connection's loss is no reason to run fn again, and errors
// are as that driver has them.
func InTx(ctx context.Context, db *sql.DB, opts *TxOptions, fn func(context.Context, *sql.Tx) error) error {
	if nestedIn(ctx, db) {
		return errNested
	}
	if opts == nil {
		opts = &TxOptions{}
	}
	for try := 0; ; try++ {
		again, err := inTx(ctx, db, opts, fn)
		if err == nil || !again || try >= opts.Retries || errors.Is(err, ctx.Err()) {
			return err
		}
		if !pause(ctx, try) {
			return fmt.Errorf("%w; before: %w", ctx.Err(), err)
		}
	}
}

var (
	errNested = errors.New("managedpg: InTx inside the function of another InTx of the same db: " +
		"take the *sql.Tx, or begin a transaction that is meant to be apart with db.BeginTx")
	errRolledBack = errors.New("managedpg: InTx's function ended the transaction itself, without a commit")
	errDeparted   = errors.New("managedpg: InTx's function ended the transaction itself")
	errNotOurs    = errors.New("managedpg: ResolveCommit needs a sql.DB of managedpg's")
)

// inTx is one try. Again says that another one is safe, and may fare better.
func inTx(ctx context.Context, db *sql.DB, opts *TxOptions, fn func(context.Context, *sql.Tx) error) (again bool, err error) {
	attempt := internalconn.Attempt{Resolve: opts.ResolveCommit}
	tx, err := db.BeginTx(internalconn.WithAttempt(ctx, &attempt), &opts.TxOptions)
	if err != nil {
		return metNobody(err), err
	}
	if opts.ResolveCommit && !attempt.State().Ours {
		_ = tx.Rollback()
		return false, errNotOurs
	}
	fnErr := call(ctx, db, tx, fn)
	switch s := attempt.State(); {
	case s.Unknown != nil:
		// It was fn that sent what wasn't answered, whatever it says.
		_ = tx.Rollback()
		if fnErr == nil || errors.Is(fnErr, s.Unknown) {
			return false, s.Unknown
		}
		return false, fmt.Errorf("%w; then: %w", s.Unknown, fnErr)
	case s.Committed && fnErr != nil:
		return false, fmt.Errorf("managedpg: InTx's function committed by itself, and then failed: %w", fnErr)
	case s.Committed:
		return false, nil
	case fnErr != nil:
		return rollBack(tx, &attempt, ctx, fnErr)
	case s.Ended && ctx.Err() == nil:
		return false, errRolledBack
	default:
		again, err = commit(ctx, tx, &attempt)
		if opts.ResolveCommit && errors.Is(err, ErrOutcomeUnknown) {
			return resolve(ctx, err)
		}
		return again, err
	}
}

// call calls fn, and rolls back if fn doesn't return.
func call(ctx context.Context, db *sql.DB, tx *sql.Tx, fn func(context.Context, *sql.Tx) error) error {
	n := &nesting{db: db}
	n.outer, _ = ctx.Value(nestingKey{}).(*nesting)
	returned := false
	defer func() {
		n.over.Store(true)
		if !returned {
			_ = tx.Rollback() // and the panic goes on
		}
	}()
	err := fn(context.WithValue(ctx, nestingKey{}, n), tx)
	returned = true
	return err
}

// rollBack ends a transaction whose function has returned an error.
func rollBack(tx *sql.Tx, attempt *internalconn.Attempt, ctx context.Context, fnErr error) (again bool, err error) {
	rolledBack := tx.Rollback()
	s := attempt.State()
	var lost *conn.LostError
	switch {
	case s.Departed:
		return false, fnErr
	case !s.Ours && errors.Is(rolledBack, sql.ErrTxDone) && ctx.Err() == nil:
		return false, fnErr // fn ended it, there is no telling how
	case errors.Is(rolledBack, ErrTxLost) && errors.As(rolledBack, &lost) && !errors.Is(fnErr, ErrTxLost) && ofConnection(fnErr):
		// Rows that are being read aren't ours: their error is the base driver's.
		fnErr = &conn.LostError{Kind: ErrTxLost, Endpoint: lost.Endpoint, Err: fnErr}
	}
	return leftNothing(fnErr), fnErr
}

// commit ends a transaction whose function has returned nil.
func commit(ctx context.Context, tx *sql.Tx, attempt *internalconn.Attempt) (again bool, err error) {
	err = tx.Commit()
	if err == nil {
		return false, nil
	}
	s := attempt.State()
	switch {
	case errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, internalconn.ErrDeparted), s.Departed && sqlstate.Of(err) == "" && !isLost(err):
		return false, errDeparted
	case errors.Is(err, pgx.ErrTxCommitRollback), errors.Is(err, pq.ErrInFailedTransaction):
		if s.Failed == nil {
			return false, fmt.Errorf("managedpg: rolled back, since a statement failed though InTx's function returned nil: %w", err)
		}
		return leftNothing(s.Failed) && !s.Departed,
			fmt.Errorf("managedpg: rolled back, since a statement failed though InTx's function returned nil: %w (%w)", s.Failed, err)
	default:
		return leftNothing(err) && !s.Departed, err
	}
}

// How long InTx may ask for the outcome of a COMMIT in all, and once its context has ended.
const (
	resolveLimit = 5 * time.Second
	resolveGrace = time.Second
)

// resolve asks what became of a COMMIT.
func resolve(ctx context.Context, unknown error) (again bool, err error) {
	var lost *conn.LostError
	if !errors.As(unknown, &lost) {
		return false, unknown
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), resolveLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		grace := time.AfterFunc(resolveGrace, cancel)
		context.AfterFunc(asking, func() { grace.Stop() })
	})()
	outcome, why := lost.Resolve(asking)
	switch outcome {
	case conn.Committed:
		return false, nil
	case conn.Aborted:
		err := *lost
		err.Kind = ErrTxLost
		return leftNothing(&err), &err
	default:
		return false, fmt.Errorf("%w; %v", unknown, why) // what ended the asking is no error of the caller's
	}
}

// leftNothing says that an error is one of those after which fn may run again, if it is that of the transaction.
func leftNothing(err error) bool {
	switch {
	case errors.Is(err, ErrOutcomeUnknown), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, ErrTxLost):
		return true
	}
	code := sqlstate.Of(err)
	return code == sqlstate.SerializationFailure || code == sqlstate.DeadlockDetected
}

// metNobody says that BEGIN found no server, or lost it, and hasn't waited for one yet.
func metNobody(err error) bool {
	return !errors.Is(err, ErrNoEndpoint) && !errors.Is(err, ErrPoolTimeout) && ofConnection(err)
}

// ofConnection says that an error is what a lost connection, or a server that isn't there, leaves.
func ofConnection(err error) bool {
	var dropped *failover.DropError
	if errors.Is(err, driver.ErrBadConn) || errors.As(err, &dropped) || pgconn.SafeToRetry(err) { // pgx's "conn closed"
		return true
	}
	of := evidence.Of(err)
	return of == evidence.Lost || of == evidence.Ended
}

func isLost(err error) bool {
	var lost *conn.LostError
	return errors.As(err, &lost)
}

// The wait before a retry doubles from firstPause, up to longestPause, and is shortened by a random half, so that those
// who met each other don't meet again.
const (
	firstPause   = 10 * time.Millisecond
	longestPause = time.Second
)

// pause waits before the next try; false says that ctx has ended.
func pause(ctx context.Context, try int) bool {
	if ctx.Err() != nil {
		return false
	}
	d := longestPause
	if try < 7 {
		d = min(d, firstPause<<try)
	}
	timer := time.NewTimer(d - rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// nesting is what the context that fn is given tells of the InTx around it.
type nesting struct {
	db    *sql.DB
	over  atomic.Bool // fn has returned; a goroutine of its may still have the context
	outer *nesting
}

type nestingKey struct{}

func nestedIn(ctx context.Context, db *sql.DB) bool {
	n, _ := ctx.Value(nestingKey{}).(*nesting)
	for ; n != nil; n = n.outer {
		if n.db == db && !n.over.Load() {
			return true
		}
	}
	return false
}
