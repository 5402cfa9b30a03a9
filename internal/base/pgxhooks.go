package base

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/internal/limit"
)

// Hooks of the user's run before pgx dials (OptionBeforeConnect) and once the server is ready (OptionAfterConnect, and the
// configuration's ValidateConnect and AfterConnect). They have their caller's time, while the server has connect_timeout; what
// they return says nothing of the server.

// hookBegins: from now on it is the user's time.
func (d *dialing) hookBegins(ctx context.Context) {
	if !d.inHook {
		d.inHook = true
		limit.Stop(ctx)
	}
}

// hookEnds: from now on it is the server's.
func (d *dialing) hookEnds(ctx context.Context) {
	if d.inHook {
		d.inHook = false
		limit.Start(ctx)
	}
}

// serverBegins is called by the first that pgx asks for after OptionBeforeConnect: a lookup or a dial.
func (d *dialing) serverBegins(ctx context.Context) {
	d.refused = false
	d.hookEnds(ctx)
}

// aroundHooks tells the time of the configuration's own hooks, and of OptionAfterConnect, which comes after them.
func aroundHooks(cfg *pgx.ConnConfig) {
	if validate := cfg.ValidateConnect; validate != nil {
		cfg.ValidateConnect = func(ctx context.Context, c *pgconn.PgConn) error {
			d := dialingOf(ctx)
			if d == nil {
				return validate(ctx, c)
			}
			d.hookBegins(ctx)
			defer d.hookEnds(ctx)
			err := validate(ctx, c)
			d.refused = err != nil
			return err
		}
	}
	after := cfg.AfterConnect
	cfg.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		if d := dialingOf(ctx); d != nil {
			d.hookBegins(ctx)
			d.prepared = after != nil
		}
		if after == nil {
			return nil
		}
		return after(ctx, c)
	}
}

// noAfterConnect stands before the user's options: when it isn't called, they have one.
var noAfterConnect = stdlib.OptionAfterConnect(func(ctx context.Context, _ *pgx.Conn) error {
	if d := dialingOf(ctx); d != nil {
		d.plain = true
	}
	return nil
})

var noReset = stdlib.OptionResetSession(func(context.Context, *pgx.Conn) error { return nil })

// withoutHooks is the configuration for connections of our own: the user's but for what is meant for the user's connections. How
// it was before the user changed it says plain.
func withoutHooks(cfg, plain *pgx.ConnConfig) *pgx.ConnConfig {
	c := cfg.Copy()
	c.ValidateConnect, c.AfterConnect = plain.ValidateConnect, plain.AfterConnect
	c.OnNotification, c.OnPgError, c.Tracer = plain.OnNotification, plain.OnPgError, plain.Tracer
	return c
}
