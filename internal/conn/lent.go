package conn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/managedpg/managedpg/internal/pool"
	"github.com/managedpg/managedpg/internal/usercode"
	"github.com/managedpg/managedpg/stats"
)

// lent is what internal/pool is told of the connections that it lends.
type lent struct{ *Pool }

var _ pool.Things[*physical] = lent{}

// unfitError is why a connection is closed that is not broken.
type unfitError stats.Closed

func (e unfitError) Error() string { return stats.Closed(e).String() }

// Dial opens a connection, on a goroutine of the pool's: a panic in a dialer or a hook of the user's must not end the program.
func (l lent) Dial(ctx context.Context, until time.Time) (ph *physical, err error) {
	err = usercode.Call(func() error { ph, err = l.dial(ctx, until); return err })
	var panicked *usercode.Panic
	if errors.As(err, &panicked) {
		l.opts.Logger().Error("managedpg: panic in a dial", "pool", l.opts.Name, "panic", fmt.Sprint(panicked.Value), "stack", string(panicked.Stack))
	}
	return ph, err
}

// Ready makes a free connection fit for its next user.
func (l lent) Ready(ctx context.Context, ph *physical, at time.Duration) error {
	if err := l.ready(ctx, ph, at); err != nil {
		if _, unfit := err.(unfitError); !unfit {
			ph.base.Kill(err) // pgx may go on in the background, and what comes next needs the place
		}
		return err
	}
	ph.checkedOut = at
	return nil
}

// Stale says why a free connection is not to be used again.
func (l lent) Stale(ph *physical, at time.Duration) error {
	if why, unfit := l.unfit(ph, at); unfit {
		return unfitError(why)
	}
	return nil
}

// Close closes a connection.
func (l lent) Close(ph *physical, why error, done func()) {
	reason := stats.ClosedBroken
	var unfit unfitError
	switch {
	case errors.As(why, &unfit):
		reason = stats.Closed(unfit)
	case errors.Is(why, pool.ErrIdle):
		reason = stats.ClosedIdle
	case errors.Is(why, pool.ErrSurplus):
		reason = stats.ClosedOverflow
	case errors.Is(why, pool.ErrClosed):
		reason = stats.ClosedShutdown
	}
	l.end(ph, reason, done)
}
