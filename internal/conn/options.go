package conn

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/leak"
)

// Options are what a pool needs to know of its configuration. The keys are explained in managedpg.Config.
type Options struct { // More than 15 fields: one for each setting.
	Name           string
	Size           int // pool_size; 0: database/sql governs
	MaxOverflow    int // -1: no limit
	Timeout        time.Duration
	Recycle        time.Duration
	IdleTimeout    time.Duration
	MinIdle        int
	PrePing        bool
	PingTimeout    time.Duration
	CancelTimeout  time.Duration
	StatementCache int
	DiscardAll     bool
	Echo           bool
	ReadOnly       bool // nothing can be written in its sessions
	Role           bool // the role of each connection's server must be known
	OnConnect      func(context.Context, driver.Conn) error
	Logger         func() *slog.Logger
	Leaks          *leak.Tracker // nil: no leak detection
	ReclaimAfter   time.Duration // what Leaks has
	// Prober is an endpoint's, whose connection a LostError's Resolve may ask; it may be nil, or return nil.
	Prober func(member int) *Prober
}

// Router says where a new connection leads to, and hears what calls tell of the servers.
type Router interface {
	// Connect calls open with the one to dial, and with others when that fails, until one succeeds or there is no use in
	// going on.
	// It shares the time until then out among the ones it tries; zero: there is no such limit.
	Connect(ctx context.Context, until time.Time, open func(ctx context.Context, to Route) error) error
	// Unreached is what a caller is told whose context ended with err before there was a connection; nil: just that.
	Unreached(err error, waited time.Duration) error
	// Admit is asked, with open's context, whether the connection that was opened may be used.
	Admit(ctx context.Context, s base.Server) error
	// Fenced is why a server must not be written to; nil if it isn't fenced.
	Fenced(s base.Server) error
	// CallFailed is evidence about the one of that number.
	CallFailed(member int, err error)
}

// Route is where a connection is to lead.
type Route struct {
	// Endpoint is to be dialled.
	Endpoint *base.Endpoint
	// Member is its number with the Router.
	Member int
	// Signals are the Router's about the one to be dialled.
	Signals *evidence.Signals
	// Moves says that Admit needs to know the timeline of the server that the connection leads to.
	Moves bool
}
