package conn

import (
	"context"

	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Reclaim takes a checkout back from who holds it: for leak.Options.Reclaim, whose holder is what lend left with the
// tracker. It returns false if the checkout has ended meanwhile or a call is in progress on it: slow isn't abandoned.
//
// The holder keeps a logical connection that owns nothing; its next call gets the ReclaimedError, as do Rows that are
// still being read. The permit is free once the socket is closed, which happens from here, not when the holder returns.
func Reclaim(holder any, checkout uint64, r leak.Report) bool {
	ph := holder.(*physical)
	c := ph.user.Load()
	if c == nil || !c.state.CompareAndSwap(connHeld, connReclaim) {
		return false
	}
	if ph.checkout != checkout {
		c.state.Store(connHeld)
		return false
	}
	reason := &ReclaimedError{Report: r}
	c.reclaimed = reason
	c.state.Store(connGone)
	c.pool.takeBack(ph, now())
	c.pool.forget(ph)
	go func() {
		ph.cancelCall()
		ph.abandon(reason, func() {
			c.pool.gone(stats.ClosedReclaimed)
			if c.pool.governed {
				c.pool.release()
			}
		})
	}()
	return true
}

// cancelCall asks the server to end what the session is doing, if the base driver can: Rows that were left open may keep
// it busy, and a server that is busy doesn't notice a closed socket.
func (ph *physical) cancelCall() {
	if ph.pgx == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	_ = ph.pgx.Conn().PgConn().CancelRequest(ctx)
}

// abandon closes the socket under a base connection that somebody may still use, so that it can't be told to close.
func (ph *physical) abandon(reason error, then func()) {
	if ph.sock != nil {
		ph.sock.whenClosed(then)
	}
	ph.kill(reason)
	if ph.sock == nil {
		then()
	}
}
