package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/sqltext"
)

// Attempt is what this package tells managedpg.InTx of a transaction, beyond what a sql.Tx tells: whether it is still the
// one that was begun, and whether anything in it may have become permanent.
type Attempt struct {
	// Resolve has the transaction's id asked for before COMMIT, so that a LostError can find out later what became of it.
	// It is set before BeginTx, and costs a round trip.
	Resolve bool

	mu    sync.Mutex // guards what follows: a context's end rolls back from a goroutine of database/sql's
	state AttemptState
}

// AttemptState is how far it has come.
type AttemptState struct {
	// Ours: a connection of this package began it. Else nothing that follows is known.
	Ours bool
	// Committed: Commit was called, and succeeded.
	Committed bool
	// Ended: Commit or Rollback was called.
	Ended bool
	// Departed: a text that may end the transaction was sent in it (COMMIT in an Exec, say).
	Departed bool
	// Unknown is the LostError of a COMMIT, or of a text that may have committed, whose outcome is unknown.
	Unknown error
	// Failed is the first error that the server answered to a statement in it. It may have been handled, by a savepoint.
	Failed error
}

// ErrDeparted is what Commit says of an Attempt whose session is in no transaction any more: a text ended it.
var ErrDeparted = errors.New("a statement of its own has ended the transaction already")

// attempts is set when the first Attempt is made, so that programs without any don't look for one at each BEGIN.
var attempts atomic.Bool

type attemptKey struct{}

// WithAttempt is a context for BeginTx, and for nothing else: the transaction begun with it is a's.
func WithAttempt(ctx context.Context, a *Attempt) context.Context {
	attempts.Store(true)
	return context.WithValue(ctx, attemptKey{}, a)
}

func attemptOf(ctx context.Context) *Attempt {
	if !attempts.Load() {
		return nil
	}
	a, _ := ctx.Value(attemptKey{}).(*Attempt)
	return a
}

// State is how far it has come.
func (a *Attempt) State() AttemptState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

// These two are called with a nil Attempt too, which is that of a plain transaction.

func (a *Attempt) resolves() bool { return a != nil && a.Resolve }

// ran notes a text that was sent, and what its sender was told.
func (a *Attempt) ran(query string, told error) {
	if a == nil {
		return
	}
	departs := sqltext.MayEnd(query)
	if !departs && told == nil {
		return
	}
	a.note(func(s *AttemptState) {
		s.Departed = s.Departed || departs
		switch {
		case told == nil || told == driver.ErrSkip:
		case errors.Is(told, ErrOutcomeUnknown):
			s.Unknown = told
		case s.Failed == nil && sqlstate.Of(told) != "":
			s.Failed = told
		}
	})
}

func (a *Attempt) note(change func(*AttemptState)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.state)
}

// begun also forgets what a connection noted that was lost at BEGIN: database/sql tries another one.
func (a *Attempt) begun() {
	a.note(func(s *AttemptState) { *s = AttemptState{Ours: true} })
}

// ended notes what a Commit or Rollback was told.
func (a *Attempt) ended(what kind, told error) {
	a.note(func(s *AttemptState) {
		s.Ended = true
		s.Committed = what == commit && told == nil
		if errors.Is(told, ErrOutcomeUnknown) {
			s.Unknown = told
		}
	})
}

// departed says whether the session is certainly in no transaction any more. Of lib/pq that can't be seen, but it looks
// itself.
func (ph *physical) departed() bool {
	return !ph.base.Closed() && ph.base.TxStatus() == base.TxNone
}
