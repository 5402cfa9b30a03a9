package conn

import (
	"context"
	"database/sql/driver"
)

// Tx is a transaction that BeginTx began.
type Tx struct {
	conn *Conn
	ctx  context.Context // BeginTx's, which the base driver uses for COMMIT and ROLLBACK too
	base driver.Tx

	attempt *Attempt // nil unless InTx began it
}

// Commit commits.
func (t *Tx) Commit() error { return t.end(commit, t.base.Commit) }

// Rollback rolls back.
func (t *Tx) Rollback() error { return t.end(rollback, t.base.Rollback) }

func (t *Tx) end(what kind, f func() error) (err error) {
	attempt := t.attempt
	defer func() { attempt.ended(what, err) }()
	ph, err := t.conn.enter(t.ctx)
	if err != nil {
		return err
	}
	defer t.conn.leave()
	t.attempt = nil // what the session does from now on is no part of it
	if attempt != nil && ph.departed() {
		ph.tx = txNone
		return ErrDeparted
	}
	defer ph.bear(t.ctx, closeLimit).stop()
	before := ph.mark()
	err = f()
	if err != nil || ph.syncWait.Load() {
		err = t.conn.verdict(t.ctx, ph, before, what, "", err)
	}
	if err == nil || ph.sock == nil || ph.sent(before) {
		ph.tx = txNone
	}
	return err
}
