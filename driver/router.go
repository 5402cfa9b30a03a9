package driver

import (
	"context"
	"math"
	"time"

	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/failover"
)

// router lets the pool ask the failover group, and the group act on the pool. Neither knows the other.
type router struct {
	*failover.Group
	endpoints []*conn.Endpoint
	probers   []*conn.Prober
}

// newRouter makes the group of the endpoints. What it decides about their connections is done to the pool that pool
// returns, which isn't made yet.
func newRouter(o Options, pool func() *conn.Pool) *router {
	r := &router{endpoints: o.Endpoints}
	several := len(o.Endpoints) > 1
	var members []failover.Endpoint
	for _, e := range o.Endpoints {
		m := failover.Endpoint{Name: e.Name}
		if o.Probed {
			p := conn.NewProber(e, several)
			r.probers = append(r.probers, p)
			m.Probe = func(ctx context.Context) (failover.Observation, error) {
				s, err := p.Probe(ctx, failover.Anew(ctx))
				return observation(s), err
			}
		}
		members = append(members, m)
	}
	group := o.Failover
	group.DialLimit = dialLimit(o.Pool.Size, several)
	group.Drop = func(member int, below int64, reason error) { pool().Kill(member, below, reason) }
	group.Drain = func(int) { pool().Sweep() }
	group.Stuck = func(member int, since time.Time, reason error) { pool().KillStuck(member, since, reason) }
	r.Group = failover.New(group, members...)
	return r
}

// dialLimit is how many dials to one endpoint are under way at a time: pool_size, and 4 at least, so that a failover is no
// stampede. To a single endpoint there is no failover, and no limit but the pool's.
func dialLimit(size int, several bool) int {
	if !several {
		return math.MaxInt16
	}
	return max(size, 4)
}

// Connect is conn.Router's.
func (r *router) Connect(ctx context.Context, until time.Time, open func(context.Context, conn.Route) error) error {
	return r.Group.Connect(ctx, until, func(ctx context.Context, to failover.Route) error {
		return open(ctx, conn.Route{Endpoint: r.endpoints[to.Member], Member: to.Member, Epoch: to.Epoch, Hung: to.Hung, Moves: to.Moves})
	})
}

// Admit is conn.Router's.
func (r *router) Admit(ctx context.Context, s conn.Server) error {
	return failover.Admit(ctx, observation(s))
}

// prober is an endpoint's, nil if it isn't probed.
func (r *router) prober(member int) *conn.Prober {
	if member >= len(r.probers) {
		return nil
	}
	return r.probers[member]
}

// close ends the monitor, and the connections that its probes have kept.
func (r *router) close() {
	r.Group.Close()
	for _, p := range r.probers {
		p.Close()
	}
}

// observation is what a connection told, as the failover group sees it.
func observation(s conn.Server) failover.Observation {
	o := failover.Observation{Timeline: s.Timeline, SystemID: s.SystemID, Note: s.Note}
	switch s.Standby {
	case conn.Yes:
		o.Recovery, o.Role = failover.InRecovery, failover.ReadOnly
	case conn.No:
		o.Recovery = failover.NotInRecovery
	}
	switch {
	case o.Role != "":
	case s.ReadOnly == conn.Yes:
		o.Role = failover.ReadOnly
	case s.ReadOnly == conn.No:
		o.Role = failover.ReadWrite
	default:
		o.Role = failover.RoleUnknown
	}
	return o
}
