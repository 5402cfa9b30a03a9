package failover

import "sync/atomic"

// Epoch is that of a Route to the member.
func (g *Group) Epoch(member int) *atomic.Uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.member(member).route().Epoch
}

// Moves is that of a Route to the member.
func (g *Group) Moves(member int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.member(member).route().Moves
}
