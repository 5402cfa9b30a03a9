package failover

import (
	"context"
	"log/slog"
	"time"
)

// Endpoint is a server as the group sees it.
type Endpoint struct {
	// Name is host:port/dbname, without secrets.
	Name string
	// Probe asks the server for its role, timeline and system identifier, in one round trip. For each member it is called
	// by one goroutine at a time, has HealthCheckTimeout, and must return when its context ends. An error counts against the
	// server, so a probe that keeps a connection dials anew before it reports that one as lost. nil: never probed.
	Probe func(ctx context.Context, to Route) (Observation, error)
	// Lookup gives the addresses of the endpoint's host, each of a server of its own. When there are several, each is asked,
	// remembered and judged like an endpoint of its own: it is a member of the group. nil: it is one server.
	Lookup func(ctx context.Context) ([]string, error)
	// Note is what else Health is to say of it; "" for nothing. It must be quick. nil: nothing ever.
	Note func() string
}

// Options are what a group needs to know of its configuration. The keys are explained in driver.Config. Callbacks may be
// nil; they are called one at a time, in the order of what happened, without a lock held.
type Options struct { // More than 15 fields: one for each setting.
	// Pool is the pool's name, for logs and errors.
	Pool string
	// TargetSessionAttrs is libpq's. Empty: any.
	TargetSessionAttrs string
	// Fencing keeps from servers that a newer timeline was seen of.
	Fencing bool
	// Failover allows any but the first endpoint to be used.
	Failover bool
	// Random spreads the connections over all endpoints that are as fit as the best one, unless a writer is wanted.
	Random bool
	// Failback returns to a better endpoint after FailbackAfter (at least 1) good probes in a row.
	Failback      bool
	FailbackAfter int

	// MaxReplicationLag is how far behind a standby's replay may be; one that is farther is used only when no other is usable, and with
	// prefer-standby not before the primary. 0: no limit.
	MaxReplicationLag time.Duration

	// HealthCheck runs the probes. Without it only dials and calls tell about the endpoints, an endpoint that went down
	// is tried again only when no other is usable, and there is no failback but by hand.
	HealthCheck bool
	// HealthCheckInterval is the time between two probes of an endpoint that is up. 0: 5s.
	HealthCheckInterval time.Duration
	// HealthCheckTimeout is the limit of a probe. 0: 5s.
	HealthCheckTimeout time.Duration

	// FailoverTimeout is how long Connect waits for a usable endpoint. A dial already begun may end later. 0: it makes
	// one round over the endpoints and doesn't wait.
	FailoverTimeout time.Duration
	// FailoverRetryDelay is the wait between two rounds, jittered. 0: 1s.
	FailoverRetryDelay time.Duration
	// FailoverRetryAttempts is how many rounds Connect makes before it fails earlier. 0: as many as fit.
	FailoverRetryAttempts int
	// ConnectTimeout is the limit of one dial. 0: none but the context's.
	ConnectTimeout time.Duration
	// DialLimit is how many dials to one endpoint are under way at a time. Below 1: 4.
	DialLimit int

	// Logger is asked at each record. nil: slog.Default.
	Logger func() *slog.Logger
	// OnFailover is told of failovers and failbacks, by a goroutine of its own, so that it may take its time.
	OnFailover func(Event)

	// Drop: the member's connections must go now, whoever uses them, that lead to a server which could write on a timeline
	// below the given one, or of which that isn't known. The reason is a *DropError of kind Fenced or Moved.
	Drop func(member int, below int64, reason error)
	// Drain: the member's free connections must go now, the others when they are checked in: another endpoint is used, or
	// the server has changed its role. Calls on it are left alone.
	Drain func(member int)
	// Shed: others have too few connections. So many of the member's free ones must be closed now, and those that are missing when
	// they are checked in; see Route.Surplus.
	Shed func(member, n int)
	// InUse says that there are connections to the member. It is asked of one whose address its name doesn't have any more:
	// once there are none it is forgotten, of which Gone tells.
	InUse func(member int) bool
	Gone  func(member int)
	// Stuck: the sockets of calls that have heard nothing since then must be closed: two probes were not answered since,
	// and another endpoint is usable. It is called again after each further probe without an answer. The reason is a
	// *DropError of kind Hung.
	Stuck func(member int, since time.Time, reason error)
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
