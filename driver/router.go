package driver

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/conn"
	"github.com/managedpg/managedpg/internal/failover"
)

// router lets the pool ask the failover group, and the group act on the pool. Neither knows the other.
type router struct {
	*failover.Group
	endpoints []*base.Endpoint // as configured
	keep      bool             // the probers keep their connections

	mu      sync.Mutex // guards what follows
	members map[int]*member
	closed  bool
}

// member is an endpoint, or one of its addresses, as the group numbers them.
type member struct {
	endpoint *base.Endpoint
	address  string
	prober   *conn.Prober // nil until it is probed
}

// newRouter makes the group of the endpoints. What it decides about their connections is done to the pool that pool
// returns, which isn't made yet.
func newRouter(o Options, pool func() *conn.Pool) *router {
	several := len(o.Endpoints) > 1
	r := &router{endpoints: o.Endpoints, keep: several, members: make(map[int]*member)}
	var members []failover.Endpoint
	for _, e := range o.Endpoints {
		m := failover.Endpoint{Name: e.Name, Lookup: e.Lookup, Note: e.Note}
		if o.Probed {
			m.Probe = r.probe
		}
		members = append(members, m)
	}
	group := o.Failover
	group.DialLimit = dialLimit(o.Pool.Size, several)
	group.Drop = func(member int, below int64, reason error) { pool().Kill(member, below, reason) }
	group.Shed = func(int, int) { pool().Sweep() }
	group.Drain = func(int) { pool().Sweep() }
	group.InUse = func(member int) bool { return pool().InUse(member) }
	group.Gone = r.gone
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
		return open(ctx, conn.Route{Endpoint: r.at(to), Member: to.Member, Signals: to.Signals, Moves: to.Moves})
	})
}

// at is the endpoint to dial, which knows by which address.
func (r *router) at(to failover.Route) *base.Endpoint {
	configured := r.endpoints[to.Endpoint]
	if to.LookupErr != nil {
		return configured.At(to.Name, "", to.LookupErr)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.memberLocked(to.Member)
	if m.endpoint == nil || m.address != to.Address || m.endpoint.Name != to.Name {
		m.endpoint, m.address = configured.At(to.Name, to.Address, nil), to.Address
	}
	return m.endpoint
}

func (r *router) memberLocked(number int) *member {
	m := r.members[number]
	if m == nil {
		m = &member{}
		r.members[number] = m
	}
	return m
}

// probe is failover.Endpoint's.
func (r *router) probe(ctx context.Context, to failover.Route) (failover.Observation, error) {
	e := r.at(to)
	r.mu.Lock()
	m := r.memberLocked(to.Member)
	if m.prober == nil {
		m.prober = conn.NewProber(r.keep)
		if r.closed {
			m.prober.Close()
		}
	}
	r.mu.Unlock()
	var s base.Probed
	var err error
	if failover.Afresh(ctx) {
		s, err = m.prober.ProbeAddress(ctx, e)
	} else {
		s, err = m.prober.Probe(ctx, e, failover.Anew(ctx))
	}
	o := observation(s.Server)
	o.Note = s.Note
	o.Replay = failover.Replay{Written: s.Written, Received: s.Received, Replayed: s.Replayed, Age: s.ReplayAge}
	return o, err
}

// gone forgets a member that its name no longer leads to.
func (r *router) gone(number int) {
	r.mu.Lock()
	m := r.members[number]
	delete(r.members, number)
	r.mu.Unlock()
	if m != nil && m.prober != nil {
		m.prober.Close()
	}
}

// Admit is conn.Router's.
func (r *router) Admit(ctx context.Context, s base.Server) error {
	return failover.Admit(ctx, observation(s))
}

// Fenced is conn.Router's.
func (r *router) Fenced(s base.Server) error { return r.Group.Fenced(observation(s)) }

// prober is a member's, nil if it isn't probed.
func (r *router) prober(number int) *conn.Prober {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m := r.members[number]; m != nil {
		return m.prober
	}
	return nil
}

// close ends the monitor, and the connections that its probes have kept.
func (r *router) close() {
	r.Group.Close()
	r.mu.Lock()
	r.closed = true
	var probers []*conn.Prober
	for _, m := range r.members {
		if m.prober != nil {
			probers = append(probers, m.prober)
		}
	}
	r.mu.Unlock()
	for _, p := range probers {
		p.Close()
	}
}

// observation is what a connection told, as the failover group sees it.
func observation(s base.Server) failover.Observation {
	o := failover.Observation{Timeline: s.Timeline, SystemID: s.SystemID}
	switch s.Standby {
	case base.Yes:
		o.Recovery, o.Role = failover.InRecovery, failover.ReadOnly
	case base.No:
		o.Recovery = failover.NotInRecovery
	}
	switch {
	case o.Role != "":
	case s.ReadOnly == base.Yes:
		o.Role = failover.ReadOnly
	case s.ReadOnly == base.No:
		o.Role = failover.ReadWrite
	default:
		o.Role = failover.RoleUnknown
	}
	return o
}
