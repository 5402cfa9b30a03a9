package conn

import (
	"context"
	"database/sql/driver"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/resolve"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/internal/wire"
)

// Tx is a transaction that BeginTx began.
type Tx struct {
	conn    *Conn
	ctx     txContext // BeginTx's, which counts for COMMIT too
	base    driver.Tx
	attempt *Attempt // nil unless InTx began it
}

// Commit commits. Where the context has ended nothing is committed any more.
func (t *Tx) Commit() error {
	if ended := t.ctx.Err(); ended != nil && t.conn.pool.opts.CancelTimeout > 0 {
		_ = t.Rollback()
		return ended
	}
	return t.end(commit)
}

// Rollback rolls back.
func (t *Tx) Rollback() error { return t.end(rollback) }

func (t *Tx) end(what kind) error {
	ctx, attempt := t.ctx.Context, t.attempt
	if attempt != nil {
		t.attempt = nil // what the session does from now on is no part of it
	}
	if limit := t.conn.pool.opts.CancelTimeout; what == rollback && limit > 0 && ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), limit)
		defer cancel()
		t.ctx.Context = ctx
	}
	err := t.finish(ctx, what, attempt)
	t.ctx.Context = context.Background() // BeginTx's isn't kept alive by an idle connection
	if attempt != nil {
		attempt.ended(what, err)
	}
	if t.conn.away {
		t.conn.comeBack()
	}
	return err
}

// txContext is the context of a transaction, which pgx keeps from BEGIN on for COMMIT and ROLLBACK: it would close a connection on which the
// ROLLBACK that follows on the context's end ends with it, so that has another one.
type txContext struct{ context.Context }

// AfterFunc is for [context.AfterFunc], which would read a context of an unknown kind from a goroutine of its own. Once stop has returned nobody
// reads it any more, and there may be another one.
func (c *txContext) AfterFunc(f func()) (stop func() bool) {
	done := make(chan struct{})
	halt := context.AfterFunc(c.Context, func() {
		defer close(done)
		f()
	})
	return func() bool {
		if halt() {
			close(done)
			return true
		}
		<-done // f has begun, or halt was called before
		return false
	}
}

func (t *Tx) finish(ctx context.Context, what kind, attempt *Attempt) error {
	ph, err := t.conn.enter(ctx)
	if err != nil {
		return err
	}
	if !ph.quiet {
		ph.txCtx = nil
		_, watch := ph.watch(ctx, wire.CloseLimit)
		defer t.conn.done(watch)
	}
	var sending *resolve.Commit
	if attempt != nil {
		if ph.departed() {
			ph.tx = sqltext.TxNone
			return ErrDeparted
		}
		if what == commit && attempt.Resolve && ph.tx != sqltext.TxReadOnly {
			if sending, err = t.prepareCommit(ctx, ph, attempt); err != nil {
				return err
			}
		}
	}
	before := ph.base.Mark()
	if what == commit {
		err = t.base.Commit()
	} else {
		err = t.base.Rollback()
	}
	if err != nil || ph.syncWait.Load() {
		err = t.conn.verdict(ctx, ph, before, what, "", err)
		if sending != nil {
			ph.explain(err, sending)
		}
	}
	if err == nil || !ph.base.Counts() || ph.base.Sent(before) {
		ph.tx = sqltext.TxNone
	}
	return err
}

// prepareCommit asks for the transaction's id. If the server refuses to say, it is COMMIT that fails.
func (t *Tx) prepareCommit(ctx context.Context, ph *physical, attempt *Attempt) (*resolve.Commit, error) {
	if ph.base.TxStatus() == base.TxFailed {
		return nil, nil // nothing will be committed
	}
	before := ph.base.Mark()
	sending, err := resolve.Prepare(ctx, ph.base, ph.identity)
	if err == nil {
		return sending, nil
	}
	if ctx.Err() == nil && ph.answered(err) {
		if sqlstate.Of(err) != sqlstate.InFailedTransaction {
			attempt.ran("", err)
		}
		return nil, nil
	}
	return nil, t.conn.verdict(ctx, ph, before, statement, "", err)
}
