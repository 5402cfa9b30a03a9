package conn

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/managedpg/managedpg/stats"
)

// pgxWatcher is what pgx does when a call's context ends: the server is asked to cancel, and the call goes on until it answers, for
// at most cancel_timeout. pgx calls its methods one after the other.
type pgxWatcher struct {
	pg        *pgconn.PgConn
	canceller *canceller
	recorder  *stats.Recorder // the pool's, once the connection is in it
	request   *cancelRequest  // of the last call whose context ended, until settle has seen to it
}

var _ ctxwatch.Handler = (*pgxWatcher)(nil)

// HandleCancel is called when the context of a call has ended.
func (w *pgxWatcher) HandleCancel(context.Context) {
	limit := w.canceller.allowed()
	_ = w.pg.Conn().SetDeadline(time.Now().Add(limit))
	if limit > 0 {
		w.request = w.canceller.start(w.recorder, w.send)
	}
}

// HandleUnwatchAfterCancel is called when that call has ended.
func (w *pgxWatcher) HandleUnwatchAfterCancel() {
	_ = w.pg.Conn().SetDeadline(time.Time{})
	if w.request != nil {
		w.request.stop(w.pg.IsClosed() || now()-w.request.began >= w.canceller.timeout)
	}
}

// send makes a request. pgx doesn't say whether it was read to its end; our socket does.
func (w *pgxWatcher) send(ctx context.Context) error {
	var ended atomic.Bool
	if err := w.pg.CancelRequest(context.WithValue(ctx, endedKey{}, &ended)); err != nil {
		return err
	}
	if !ended.Load() {
		return errCancelAstray
	}
	return nil
}

// endedKey finds, in the context of a cancel request, where its socket notes that it was read to its end.
type endedKey struct{}

const watcherKey = "github.com/managedpg/managedpg/watcher"

// pgxWatcher is pgx's BuildContextWatcherHandler.
func (c *canceller) pgxWatcher(pg *pgconn.PgConn) ctxwatch.Handler {
	w := &pgxWatcher{pg: pg, canceller: c}
	pg.CustomData()[watcherKey] = w
	return w
}

// sameFunc tells whether a hook of pgx's configuration is still the one that it was.
func sameFunc(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
