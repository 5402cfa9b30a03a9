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

// Rollback rolls back. Where the context has ended it has cancel_timeout.
func (t *Tx) Rollback() error {
	if limit := t.conn.pool.opts.CancelTimeout; limit > 0 && t.ctx.Err() != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx.Context), limit)
		defer cancel()
		t.ctx.Context = ctx
	}
	return t.end(rollback)
}

func (t *Tx) end(what kind) error {
	ph := t.conn.quick()
	if ph == nil || t.conn.away {
		return t.endSlow(what)
	}
	err := t.endOn(t.ctx.Context, ph, what)
	t.ctx.Context = context.Background() // BeginTx's isn't kept alive by an idle connection
	return err
}

// endSlow is end where something has to be seen to, of InTx's transactions, and of those on the pool for reads.
func (t *Tx) endSlow(what kind) error {
	ctx, attempt := t.ctx.Context, t.attempt
	t.attempt = nil // what the session does from now on is no part of it
	err := t.finish(ctx, what, attempt)
	t.ctx.Context = context.Background()
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

// finish is endSlow's call. An attempt may want to know what becomes of its COMMIT: then whoever is told that it is unknown can ask.
func (t *Tx) finish(ctx context.Context, what kind, attempt *Attempt) error {
	ph, err := t.conn.enter(ctx)
	if err != nil {
		return err
	}
	ph.txCtx = nil
	_, watch := ph.watch(ctx, wire.CloseLimit)
	defer t.conn.done(watch)
	if attempt == nil {
		return t.endOn(ctx, ph, what)
	}
	if ph.departed() {
		ph.tx = sqltext.TxNone
		return ErrDeparted
	}
	if what == rollback || !attempt.Resolve || ph.tx == sqltext.TxReadOnly {
		return t.endOn(ctx, ph, what)
	}
	sending, err := t.prepareCommit(ctx, ph, attempt)
	if err != nil {
		return err
	}
	err = t.endOn(ctx, ph, commit)
	if sending != nil {
		ph.explain(err, sending)
	}
	return err
}

// endOn has the base commit, or roll back.
func (t *Tx) endOn(ctx context.Context, ph *physical, what kind) error {
	var err error
	before := ph.base.Mark()
	if what == commit {
		err = t.base.Commit()
	} else {
		err = t.base.Rollback()
	}
	if err == nil && !ph.syncWait.Load() {
		ph.tx = sqltext.TxNone
		return nil
	}
	err = t.conn.verdict(ctx, ph, before, what, "", err)
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
