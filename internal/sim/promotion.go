package sim

import "time"

// promote has another server promoted. After a time the old primary comes back, in some cases as if nothing had happened, until somebody
// makes it a standby.
func (w *world) promote(f fault) {
	c := w.cluster
	c.promoting.Lock()
	defer c.promoting.Unlock()
	s := c.candidate(f.server)
	if s == nil {
		return
	}
	c.mu.Lock()
	old := c.primary
	c.moving = true
	c.mu.Unlock()
	switch f.how {
	case dead:
		old.die()
	case frozen:
		old.freeze()
	case unreachable:
		w.net.leaves(old.name + ":5432")
	case demoted:
		old.shutDown()
	}
	time.Sleep(c.took(50 * time.Millisecond))
	promoted := s.promote()
	c.mu.Lock()
	c.moving = false
	c.mu.Unlock()
	if promoted {
		w.log("%s is promoted", s.name)
		w.pointTo(s)
	}
	if f.how == demoted && promoted {
		old.demote()
		return
	}
	time.Sleep(f.lasts)
	switch f.how {
	case dead, demoted:
		if f.which%2 == 0 && promoted {
			old.demote()
		} else {
			old.restart()
		}
	case frozen:
		old.thaw()
	case unreachable:
		w.net.comesBack(old.name + ":5432")
	}
	time.Sleep(time.Duration(f.bytes) * time.Millisecond)
	if old.stale() {
		old.demote()
	}
}

// stale is a server that takes itself for the primary, and no longer is it.
func (s *server) stale() bool {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	return s.staleLocked()
}

func (s *server) staleLocked() bool { return !s.standby && s.cluster.primary != s }

// pointTo has the name lead to a server, if it is one that moves.
func (w *world) pointTo(s *server) {
	if w.plan.names == namesMoves {
		w.net.mu.Lock()
		w.net.names["db"] = []string{s.name}
		w.net.mu.Unlock()
	}
}

// leaves lets an address be reached no more.
func (n *network) leaves(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gone[address] = true
}
