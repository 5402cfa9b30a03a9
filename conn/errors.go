package conn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/closed"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/leak"
)

// For errors.Is; all but ErrClosed come wrapped in a typed error with detail.
var (
	// ErrPoolTimeout: no connection became free within pool_timeout. See [PoolTimeoutError].
	ErrPoolTimeout = errors.New("managedpg: pool timeout")
	// ErrReclaimed: the connection was held for longer than leak_reclaim_after and taken back. See [ReclaimedError].
	ErrReclaimed = errors.New("managedpg: connection reclaimed")
	// ErrTxLost: the connection was lost inside a transaction, which was rolled back, for certain. See [LostError].
	ErrTxLost = errors.New("managedpg: transaction lost")
	// ErrOutcomeUnknown: the connection was lost after the statement had been sent and before it was answered: it ran
	// or it did not. See [LostError].
	ErrOutcomeUnknown = errors.New("managedpg: outcome unknown")
	// ErrClosed is what a checkout gets after db.Close.
	ErrClosed = closed.Err
)

// LostError is a connection lost while it had work of ours: errors.Is finds ErrTxLost or ErrOutcomeUnknown in it, and
// what the base driver said. It never holds driver.ErrBadConn, so database/sql doesn't run the statement again.
type LostError struct {
	// Kind is ErrTxLost or ErrOutcomeUnknown.
	Kind error
	// Endpoint is the server the connection led to.
	Endpoint string
	// XID is the transaction's id (pg_current_xact_id), 0 if it isn't known. InTx asks for it with ResolveCommit.
	XID uint64
	// Err is what the base driver, the context or the socket said.
	Err error
	// Ask is what Resolve calls; nil: the server can't be asked, as the transaction's id isn't known.
	Ask func(context.Context) (Outcome, error)
}

func (e *LostError) Error() string {
	what := "transaction lost and rolled back"
	switch {
	case e.Err == sqlstate.ErrSyncWait:
		what = "outcome unknown"
	case e.Kind == ErrOutcomeUnknown:
		what = "outcome unknown: sent, and the connection lost before the answer"
	}
	if e.XID != 0 {
		what = fmt.Sprintf("transaction %d: %s", e.XID, what)
	}
	return fmt.Sprintf("managedpg: %s (%s): %v", what, e.Endpoint, e.Err)
}

func (e *LostError) Unwrap() []error { return []error{e.Kind, e.Err} }

// ReclaimedError is what the late holder of a reclaimed connection gets; errors.Is finds ErrReclaimed in it.
type ReclaimedError struct {
	// Report says who held it, since when.
	Report leak.Report
}

func (e *ReclaimedError) Error() string {
	return fmt.Sprintf("managedpg: pool %q: connection held for %v was reclaimed; checked out at %s",
		e.Report.Pool, e.Report.Duration.Round(time.Millisecond), e.Report.Caller)
}

func (e *ReclaimedError) Unwrap() error { return ErrReclaimed }

// PoolTimeoutError is a checkout that found no free connection in time. errors.Is finds ErrPoolTimeout in it when
// pool_timeout ended the wait, and the context's error when that did.
type PoolTimeoutError struct {
	Pool string
	// Waited is how long the checkout waited.
	Waited time.Duration
	// Open, InUse and Waiting are the pool's figures at the end of the wait, this checkout not counted.
	Open, InUse, Waiting int64
	// Longest are the checkouts that have held a connection longest, with leak detection on.
	Longest []leak.Report
	// Usage are the lines of code that used most of the pool's time lately, with leak detection on.
	Usage []leak.Usage
	// Err is ErrPoolTimeout or the context's error.
	Err error
	// Dial is what the last dial failed with; nil if it succeeded.
	Dial error
}

func (e *PoolTimeoutError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "managedpg: pool %q: no connection within %v", e.Pool, e.Waited.Round(time.Millisecond))
	if e.Err != ErrPoolTimeout {
		fmt.Fprintf(&b, ", %v", e.Err)
	}
	fmt.Fprintf(&b, " (%d open, %d in use, %d waiting", e.Open, e.InUse, e.Waiting)
	if len(e.Longest) > 0 {
		fmt.Fprintf(&b, "; longest held for %v, by %s", e.Longest[0].Duration.Round(time.Millisecond), e.Longest[0].Caller)
	}
	if len(e.Usage) > 0 {
		fmt.Fprintf(&b, "; %v of the time used lately", e.Usage[0])
	}
	b.WriteString(")")
	if e.Dial != nil {
		fmt.Fprintf(&b, "; new connections fail: %v", e.Dial)
	}
	return b.String()
}

func (e *PoolTimeoutError) Unwrap() error { return e.Err }
