package failover

import "sync/atomic"

// Epoch is that of a Route to the member.
func (g *Group) Epoch(member int) *atomic.Uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &g.memberLocked(member).Epoch
}

// Moves is that of a Route to the member.
func (g *Group) Moves(member int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.routeLocked(g.memberLocked(member)).Moves
}

// Load is how many connections lead to an endpoint.
func (g *Group) Load(number int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int(g.memberLocked(number).Load.Load())
}

// AddLoad opens or closes connections.
func (g *Group) AddLoad(number, n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.memberLocked(number).Load.Add(int64(n))
}
