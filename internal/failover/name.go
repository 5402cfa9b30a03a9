package failover

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/managedpg/managedpg/internal/usercode"
)

const (
	// lookupPatience is how long a dial waits for a lookup when addresses are known from before. Once one took longer,
	// nobody waits any more until a lookup answers.
	lookupPatience = 250 * time.Millisecond
	// lookupLimit ends a lookup; the resolvers of libc and Go give up earlier by themselves.
	lookupLimit = 30 * time.Second
	// lookupAge is how old an answer a probe makes do with.
	lookupAge = 250 * time.Millisecond
	// An address has left its name when that many answers in a row, over that many health check intervals, were without
	// it: some name servers give a part of the addresses at a time.
	leftAfter = 3
	// mostAddresses of a name are used. A name server's answer without TCP has room for about thirty.
	mostAddresses = 32
)

// host is an endpoint as it was configured: one server or, when its name has several addresses, a member of the group for
// each of them.
type host struct {
	Endpoint
	number int

	// What follows is guarded by Group.mu.
	looking  chan struct{} // closed when the lookup under way is over; nil: none is
	cancel   context.CancelFunc
	lookedAt time.Time // when the last lookup began
	late     bool      // the lookup under way has been waited for in vain
	known    bool      // a lookup has answered
	err      error     // what the last lookup met, if none has ever answered
}

// newMemberLocked makes a member of the group. New has none, as nobody else has the group yet.
func (g *Group) newMemberLocked(h *host, number int, address string) *endpoint {
	barred := h.number > 0 && !g.opts.Failover
	e := &endpoint{
		number:  number,
		host:    h,
		watched: g.opts.HealthCheck && h.Probe != nil,
		gate:    newGate(g.opts.DialLimit),
		signals: signals{
			probing: make(chan struct{}, 1),
			poked:   make(chan struct{}, 1),
			left:    make(chan struct{}),
		},
		candidate:    candidate{Observation: Observation{Role: RoleUnknown}, state: Unknown, barred: barred},
		place:        place{name: h.Name, address: address},
		standing:     standing{admitted: true, was: !barred, shown: Unknown},
		healthRecord: healthRecord{lag: lag{is: lagUnknown}},
	}
	if h.Lookup != nil {
		e.of = h.number + 1
	}
	return e
}

// lookUp has the host's name looked up, by one lookup at a time, and waits for the answer, but not for long when there is
// one from before. False: nothing is known when ctx ends.
func (g *Group) lookUp(ctx context.Context, h *host) bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	if h.looking == nil {
		g.beginLookupLocked(ctx, h)
	}
	over, known, late := h.looking, h.known, h.late
	g.mu.Unlock()
	var patience <-chan time.Time
	if known {
		if late {
			return true
		}
		timer := time.NewTimer(lookupPatience)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	case <-over:
		return true
	case <-patience:
		g.mu.Lock()
		defer g.mu.Unlock()
		h.late = h.looking == over
		return true
	case <-g.done:
		return false
	case <-ctx.Done():
		return known
	}
}

// looks says that the name of e's endpoint is to be looked up, as a bare driver does for each dial: once in each round.
func (c *checkout) looks(e *endpoint) bool {
	if e.host.Lookup == nil || c.looked[e.host] {
		return false
	}
	c.looked[e.host] = true
	return true
}

// lookUp does that. When nothing is known of the name in time, that is e's failure.
func (c *checkout) lookUp(e *endpoint, left int) (outcome, error) {
	ctx, stop := c.ctx, func() {}
	limit, means := c.limit(e, left)
	if limit > 0 {
		ctx, stop = context.WithTimeoutCause(c.ctx, limit, means)
	}
	defer stop()
	if c.Group.lookUp(ctx, e.host) {
		return goOn, nil
	}
	c.mu.Lock()
	defer c.unlock()
	err := fmt.Errorf("managedpg: looking up the addresses of %s: %w", e.name, cmp.Or(ctx.Err(), error(ErrClosed)))
	return c.failedLocked(&attempt{group: c.Group, endpoint: e, verdicts: e.verdicts}, err, context.Cause(ctx))
}

// refresh has the name of a host looked up again, unless that was done just now.
func (g *Group) refresh(ctx context.Context, h *host) {
	if h.Lookup == nil {
		return
	}
	g.mu.Lock()
	fresh := time.Since(h.lookedAt) < lookupAge && (h.known || h.looking == nil)
	g.mu.Unlock()
	if !fresh {
		g.lookUp(ctx, h)
	}
}

// beginLookupLocked starts a lookup that its caller's end doesn't end.
func (g *Group) beginLookupLocked(ctx context.Context, h *host) {
	over := make(chan struct{})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupLimit)
	h.looking, h.cancel, h.lookedAt = over, cancel, time.Now()
	g.strays.run(func() {
		addresses, err := g.resolve(ctx, h)
		cancel()
		g.lookedUp(h, addresses, err)
		close(over)
	})
}

// resolve is Lookup, whose panic, in a goroutine of ours, would end the program.
func (g *Group) resolve(ctx context.Context, h *host) (addresses []string, err error) {
	err = usercode.Call(func() (err error) { addresses, err = h.Lookup(ctx); return err })
	g.logPanic(err)
	return addresses, err
}

// lookedUp takes a lookup's answer in. One that failed, or found nothing, changes nothing that was known.
func (g *Group) lookedUp(h *host, addresses []string, err error) {
	g.mu.Lock()
	defer g.unlock()
	h.looking, h.late = nil, false
	switch {
	case g.closed:
	case err == nil && len(addresses) > 0:
		h.known, h.err = true, nil
		g.assignLocked(h, addresses)
	case !h.known:
		h.err = err
	default:
		g.logLocked(slog.LevelDebug, "managedpg: name lookup failed; the addresses known from before stay in use",
			"endpoint", h.Name, "error", err)
	}
}

// assignLocked makes the host's members those of its addresses.
func (g *Group) assignLocked(h *host, addresses []string) {
	addresses = distinct(addresses)
	members := g.membersOfLocked(h)
	if only := members[0]; len(members) == 1 && (only.address == "" || len(addresses) == 1) {
		if only.address == "" && only.state == Down { // that was the lookup
			only.state, only.lastErr = Unknown, nil
		}
		only.address = addresses[0] // as it was before, or an address in place of another one
	}
	for _, address := range addresses {
		if !slices.ContainsFunc(members, func(e *endpoint) bool { return e.address == address }) {
			g.joinLocked(h, address)
		}
	}
	for _, e := range members {
		g.sightLocked(e, slices.Contains(addresses, e.address))
	}
	turn := func(e *endpoint) int { // those that the answer is without come last
		if i := slices.Index(addresses, e.address); i >= 0 {
			return i
		}
		return len(addresses)
	}
	slices.SortStableFunc(g.endpoints, func(a, b *endpoint) int {
		if a.host != b.host {
			return a.host.number - b.host.number
		}
		return turn(a) - turn(b)
	})
	g.renameLocked(h)
	g.fenceIfUsefulLocked()
	g.settleLocked()
}

// fenceIfUsefulLocked fences where another server can be used in a fenced one's place: where there is only one and any will do, none
// could.
func (g *Group) fenceIfUsefulLocked() {
	before := g.fence.on
	g.fence.on = g.opts.Fencing && !(g.singleLocked() && g.rules.target == targetAny)
	if g.fence.on && !before {
		for _, e := range g.endpoints {
			g.fence.see(e.name, e.Observation)
		}
	}
}

// distinct are the addresses to use, in the resolver's order.
func distinct(addresses []string) []string {
	var all []string
	for _, address := range addresses[:min(len(addresses), mostAddresses)] {
		if !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	return all
}

// membersOfLocked are the host's members.
func (g *Group) membersOfLocked(h *host) []*endpoint {
	var members []*endpoint
	for _, e := range g.endpoints {
		if e.host == h {
			members = append(members, e)
		}
	}
	return members
}

// joinLocked adds a member for a new address.
func (g *Group) joinLocked(h *host, address string) {
	g.numbers++
	e := g.newMemberLocked(h, g.numbers, address)
	e.was = false // whoever waits is to know of it
	e.moves = g.rules.target.wantsWriter() && g.fence.promoted()
	g.endpoints = append(g.endpoints, e)
	if e.watched && g.started.Load() {
		g.runLocked(func() { g.watch(e, 0) })
	}
}

// sightLocked notes whether an answer had the member's address. One that has left its name gets no new connections, and is
// forgotten once it has none.
func (g *Group) sightLocked(e *endpoint, present bool) {
	now := time.Now()
	switch {
	case present:
		if e.gone {
			e.gone, e.barred = false, e.host.number > 0 && !g.opts.Failover
		}
		e.missed = 0
		return
	case e.missed == 0:
		e.missedAt = now
	}
	e.missed++
	if e.missed >= leftAfter && now.Sub(e.missedAt) >= (leftAfter-1)*g.opts.HealthCheckInterval {
		e.gone, e.barred = true, true
		g.out.post(func() { g.forget(e) })
	}
}

// forget ends a member that has left its name, unless connections to it are still in use. It is called without the lock.
func (g *Group) forget(e *endpoint) {
	if f := g.opts.InUse; f != nil && f(e.number) {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	i := slices.Index(g.endpoints, e)
	if i < 0 || !e.gone || e == g.current || g.dialledLocked(e) {
		return
	}
	g.endpoints = slices.Delete(g.endpoints, i, i+1)
	e.Epoch.Add(1)
	close(e.left)
	g.departed, g.resetDeparted = g.departed.plus(e.checks), g.resetDeparted.plus(e.resetChecks)
	g.renameLocked(e.host)
	if f := g.opts.Gone; f != nil {
		g.out.post(func() { f(e.number) })
	}
}

// dialledLocked says that a dial to it is under way.
func (g *Group) dialledLocked(e *endpoint) bool {
	for a := range g.dials {
		if a.endpoint == e {
			return true
		}
	}
	return false
}

// renameLocked calls the members of a host by the host's name and, of several, each by its address too.
func (g *Group) renameLocked(h *host) {
	members := g.membersOfLocked(h)
	for _, e := range members {
		e.name = h.Name
		if len(members) > 1 {
			e.name += " (" + e.address + ")"
		}
	}
}
