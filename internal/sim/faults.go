package sim

import (
	"errors"
	"sync"
	"time"
)

// play plays the plan's faults, and then mends what is left of them.
func (w *world) play() {
	var all sync.WaitGroup
	for _, f := range w.plan.faults {
		all.Go(func() {
			time.Sleep(time.Until(w.began.Add(f.at)))
			w.log("fault: %v", f)
			w.meet(f)
		})
	}
	all.Wait()
	w.mend()
}

func (w *world) meet(f fault) {
	s, n := w.cluster.servers[f.server], w.net
	lasts := func(begin, end func()) {
		begin()
		time.Sleep(f.lasts)
		end()
	}
	locked := func(f func()) func() {
		return func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			f()
		}
	}
	serverLocked := func(f func()) func() { return func() { s.set(f) } }
	switch f.kind {
	case "cut up", "cut down":
		locked(func() {
			var links []*link
			for _, k := range n.links {
				if k.address == s.name+":5432" {
					links = append(links, k)
				}
			}
			if len(links) == 0 {
				return
			}
			k := links[f.which%len(links)]
			p := k.up
			if f.kind == "cut down" {
				p = k.down
			}
			p.cut = cut{f.how, f.bytes}
		})()
	case "terminate":
		w.cluster.mu.Lock()
		all := s.sessionsInOrderLocked()
		w.cluster.mu.Unlock()
		if len(all) > 0 {
			all[f.which%len(all)].terminate("57P01")
		}
	case "restart":
		lasts(s.die, s.restart)
	case "shut down":
		lasts(s.shutDown, s.restart)
	case "freeze":
		lasts(s.freeze, s.thaw)
	case "gone":
		at := s.name + ":5432"
		lasts(func() { n.leaves(at) }, func() { n.comesBack(at) })
	case "slow":
		lasts(locked(func() { n.slow += f.lasts / 20 }), locked(func() { n.slow -= f.lasts / 20 }))
	case "refuse":
		lasts(serverLocked(func() { s.closed = true }), serverLocked(func() { s.closed = false }))
	case "full":
		lasts(serverLocked(func() { s.full = true }), serverLocked(func() { s.full = false }))
	case "closing":
		lasts(serverLocked(func() { s.closing = true }), serverLocked(func() { s.closing = false }))
	case "read-only":
		lasts(serverLocked(func() { s.readOnly = true }), serverLocked(func() { s.readOnly = false }))
	case "disk":
		lasts(serverLocked(func() { s.disk = true }), serverLocked(func() { s.disk = false }))
	case "late", "lost":
		lasts(serverLocked(func() { s.cancels = f.kind }), serverLocked(func() { s.cancels = "" }))
	case "resize", "drain", "pause", "close":
		w.operate(f)
	case "promote":
		w.promote(f)
	case "mute":
		lasts(locked(func() { n.mute = errors.New("server misbehaving") }), locked(func() { n.mute = nil }))
	}
}

// shutDown ends all sessions, each with a word, and then the server.
func (s *server) shutDown() {
	s.set(func() { s.closing = true })
	s.cluster.mu.Lock()
	all := s.sessionsInOrderLocked()
	s.cluster.mu.Unlock()
	for _, one := range all {
		one.terminate("57P01")
	}
	time.Sleep(s.cluster.took(5 * time.Millisecond))
	s.die()
}

// comesBack lets an address be reached again. Connections on which something was lost meanwhile find out.
func (n *network) comesBack(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.gone, address)
	for _, k := range n.links {
		if k.address == address && (k.up.lost || k.down.lost) {
			k.resetLocked()
		}
	}
}

// mend ends what is left of the faults.
func (w *world) mend() {
	for _, s := range w.cluster.servers {
		s.thaw()
		s.restart()
		if s.stale() {
			s.demote()
		}
	}
	w.net.mu.Lock()
	for _, k := range w.net.links {
		k.up.cut, k.down.cut = cut{}, cut{}
		if k.up.lost || k.down.lost || k.up.over || k.down.over {
			k.resetLocked()
		}
	}
	w.net.mu.Unlock()
	w.log("mended")
}
