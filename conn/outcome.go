package conn

import (
	"context"
	"errors"
)

// Outcome is what became of a transaction.
type Outcome int

// Outcomes.
const (
	OutcomeUnknown Outcome = iota
	Committed
	Aborted // rolled back, or never arrived
)

// String is the outcome in a word.
func (o Outcome) String() string {
	switch o {
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	default:
		return "unknown"
	}
}

var errNoXID = errors.New("managedpg: not asked: the transaction's id is not known, which InTx finds out with ResolveCommit unless it is READ ONLY")

// Resolve asks the server what became of the transaction. It may take a few round trips, and waits while the transaction is
// still in progress, or nobody can tell yet, as long as ctx lasts. OutcomeUnknown comes with an error that says why;
// the other outcomes are certain, and come without one.
//
// Committed takes another connection of the pool to the same server, opened before the COMMIT was sent and alive since: only
// that shows that the server has not crashed meanwhile, after which the id may be somebody else's. If the server waits for
// synchronous standbys, so does Resolve. Aborted is found by any connection to the same server on the same timeline.
func (e *LostError) Resolve(ctx context.Context) (Outcome, error) {
	switch {
	case e.Kind == ErrTxLost:
		return Aborted, nil
	case e.Ask == nil:
		return OutcomeUnknown, errNoXID
	default:
		return e.Ask(ctx)
	}
}
