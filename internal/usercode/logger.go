package usercode

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
)

// Logger is the user's logger, of which a panic in its handler ends nothing but the record: it is told of on stderr.
func Logger(l *slog.Logger) *slog.Logger { return slog.New(handler{l.Handler()}) }

type handler struct{ theirs slog.Handler }

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	defer contain()
	return h.theirs.Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	defer contain()
	return h.theirs.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler { return handler{h.theirs.WithAttrs(attrs)} }
func (h handler) WithGroup(name string) slog.Handler       { return handler{h.theirs.WithGroup(name)} }

func contain() {
	if v := recover(); v != nil {
		fmt.Fprintf(os.Stderr, "managedpg: panic in a log handler: %v\n%s", v, debug.Stack())
	}
}
