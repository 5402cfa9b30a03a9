package base

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/wire"
)

// pgxWatcher is what pgx does when a call's context ends: the server is asked to cancel, and the call goes on until it answers, for
// at most cancel_timeout. pgx calls its methods one after the other.
type pgxWatcher struct {
	pg      *pgconn.PgConn
	cancels Cancels
	began   time.Duration // when the last call's context ended
}

var _ ctxwatch.Handler = (*pgxWatcher)(nil)

// HandleCancel is called when the context of a call has ended.
func (w *pgxWatcher) HandleCancel(context.Context) {
	limit := w.cancels.Allowed()
	w.began = clock.Now() // before the deadline is reckoned: a call that meets that has had the limit
	_ = w.pg.Conn().SetDeadline(time.Now().Add(limit))
	if limit > 0 {
		w.cancels.pending.Store(w.cancels.Start())
	}
}

// HandleUnwatchAfterCancel is called when that call has ended.
func (w *pgxWatcher) HandleUnwatchAfterCancel() {
	_ = w.pg.Conn().SetDeadline(time.Time{})
	if r := w.cancels.Pending(); r != nil {
		r.Stop(w.pg.IsClosed() || clock.Now()-w.began >= w.cancels.to.timeout)
	}
}

// send makes a request. pgx doesn't say whether it was read to its end; our socket does.
func (w *pgxWatcher) send(ctx context.Context) error {
	var ended atomic.Bool
	if err := w.pg.CancelRequest(wire.NoteEnd(ctx, &ended)); err != nil {
		return err
	}
	if !ended.Load() {
		return ErrCancelAstray
	}
	return nil
}

const watcherKey = "github.com/managedpg/managedpg/watcher"

// pgxWatcher is pgx's BuildContextWatcherHandler.
func (c *canceller) pgxWatcher(pg *pgconn.PgConn) ctxwatch.Handler {
	w := &pgxWatcher{pg: pg}
	w.cancels.to, w.cancels.send = c, w.send
	pg.CustomData()[watcherKey] = w
	return w
}

// sameFunc tells whether a hook of pgx's configuration is still the one that it was.
func sameFunc(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
