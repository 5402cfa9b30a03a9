package conn

import (
	"context"
	"log/slog"
)

// event logs what happened to a connection, if echo_pool asks for it.
func (p *Pool) event(ctx context.Context, what string, ph *physical, more ...any) {
	if p.opts.Echo { // nothing more, so that it is inlined
		p.log(ctx, what, ph, more...)
	}
}

func (p *Pool) log(ctx context.Context, what string, ph *physical, more ...any) {
	log := p.opts.Logger()
	if !log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	attrs := append([]any{"pool", p.opts.Name, "connection_id", ph.id, "endpoint", ph.endpoint.Name}, more...)
	log.DebugContext(ctx, "managedpg: "+what, attrs...)
}

// warn tells of the one setting of sql.DB's that works against a governed pool.
func (p *Pool) warn() {
	p.opts.Logger().Warn("managedpg: SetMaxOpenConns is in force beside pool_size: calls wait in two queues, and only one "+
		"of them knows pool_timeout and shows in the figures; leave the limit to pool_size and max_overflow", "pool", p.opts.Name)
}

func (p *Pool) warnReset() {
	p.opts.Logger().Warn("managedpg: pool_reset=discard_all with AfterConnect of pgx: each connection is closed when it is given back",
		"pool", p.opts.Name)
}
