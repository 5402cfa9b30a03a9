package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// cluster is PostgreSQL servers of one system, whose replication is synchronous: what a COMMIT has answered is on each of them.
type cluster struct {
	log     func(format string, args ...any)
	random  *rand.Rand // of how long things take
	servers []*server

	mu       sync.Mutex // guards what follows, and the servers' fields
	timeline int64
	primary  *server       // who may commit
	rows     map[int64]int // how often each row is there
	balance  map[int64]int64
	lsn      int64
	paused   time.Time // since when the pool's is complete; zero: it isn't
	strange  []string  // what must not be sent here

	moving    bool       // the primary is about to change
	two       time.Time  // when one last ended that took itself for the primary, and no longer is it
	promoting sync.Mutex // one promotion at a time
}

// server is one of them. More than 15 fields: what it is, and what is in it.
type server struct {
	cluster  *cluster
	name     string
	language string // of its messages' severity; "" English

	// What it is.
	up       bool
	standby  bool
	timeline int64
	started  int64         // how often
	thawed   chan struct{} // nil: it isn't frozen; closed when it goes on
	down     chan struct{} // closed when it dies
	tls      bool          // it speaks it when it is asked to
	slow     bool          // it takes up to two seconds to say what became of a transaction
	full     bool          // no room for new sessions
	closing  bool          // a smart shutdown: no new sessions
	closed   bool          // nobody listens
	readOnly bool          // default_transaction_read_only
	disk     bool          // it is full
	cancels  string        // what becomes of cancel requests: "late", "lost"; "": what is to
	fenced   time.Time     // since when the pool says so
	promoted time.Time
	led      int // how often it has been the primary

	// What is in it.
	sessions map[uint32]*session
	lastPID  uint32
	nextXID  uint64
	done     map[uint64]bool // the transactions that are committed, by id; a standby's are the primary's
	pending  []*transaction  // committed here, and not yet elsewhere
}

// transaction is what one has written.
type transaction struct {
	xid    uint64
	writes []write
}

// write is one row or a sum added to an account.
type write struct {
	row     int64
	account int64
	amount  int64
}

func newCluster(n int, log func(string, ...any), random *rand.Rand) *cluster {
	c := &cluster{log: log, random: random, timeline: 1, rows: make(map[int64]int), balance: make(map[int64]int64)}
	for i := range n {
		s := &server{cluster: c, name: fmt.Sprintf("db%d", i+1), standby: i > 0, nextXID: 700, done: make(map[uint64]bool), lastPID: uint32(100 * (i + 1))}
		c.servers = append(c.servers, s)
		s.startLocked()
	}
	c.primary = c.servers[0]
	c.primary.led = 1
	return c
}

// startLocked starts the server, on what it has on its disk.
func (s *server) startLocked() {
	s.up, s.down, s.sessions = true, make(chan struct{}), make(map[uint32]*session)
	s.started++
	s.closing, s.closed, s.full, s.readOnly, s.disk, s.cancels = false, false, false, false, false, ""
	s.fenced = time.Time{}
	if !s.standby {
		s.timeline = max(s.timeline, 1)
		// What was in its WAL when it died is committed now, if it is still the primary.
		for _, t := range s.pending {
			s.committedLocked(t)
		}
		s.numberAnewLocked()
	} else {
		s.timeline = s.cluster.timeline
	}
	s.pending = nil
}

// numberAnewLocked gives the ids again that nobody has committed.
func (s *server) numberAnewLocked() {
	s.nextXID = 700
	for xid := range s.done {
		s.nextXID = max(s.nextXID, xid+1)
	}
}

// committedLocked makes a transaction's writes the truth, if the server is who may do that.
func (s *server) committedLocked(t *transaction) {
	s.done[t.xid] = true
	c := s.cluster
	if c.primary != s {
		return
	}
	c.applyLocked(t)
}

// applyLocked adds a transaction to what is true.
func (c *cluster) applyLocked(t *transaction) {
	c.lsn += 100
	for _, w := range t.writes {
		if w.row != 0 {
			c.rows[w.row]++
		} else {
			c.balance[w.account] += w.amount
		}
	}
}

// candidate is a standby that can be promoted, from the given one on; nil if there is none.
func (c *cluster) candidate(from int) *server {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.servers {
		if s := c.servers[(from+i)%len(c.servers)]; s.standby && s.up && s.thawed == nil {
			return s
		}
	}
	return nil
}

// promote makes a standby the primary, on a timeline of its own. The old one goes on as if nothing had happened, but nobody
// confirms its commits any more. Of those that wait the standby has the first ones, though nobody has been told.
func (s *server) promote() bool {
	c := s.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.up || !s.standby {
		return false
	}
	old := c.primary
	s.done = maps.Clone(old.done)
	c.primary, s.standby, s.promoted = s, false, time.Now()
	for _, t := range old.pending[:c.random.IntN(len(old.pending)+1)] {
		s.committedLocked(t)
	}
	s.led++
	c.timeline++
	s.timeline = c.timeline
	s.numberAnewLocked()
	return true
}

// demote makes a server that is no longer the primary a standby, for which it is started anew.
func (s *server) demote() {
	s.die()
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.standby, s.done = true, nil
	s.startLocked()
}

// die ends the server's process, and with it all sessions.
func (s *server) die() {
	s.cluster.mu.Lock()
	if !s.up {
		s.cluster.mu.Unlock()
		return
	}
	s.up = false
	if s.staleLocked() {
		s.cluster.two = time.Now()
	}
	close(s.down)
	if s.thawed != nil {
		close(s.thawed)
		s.thawed = nil
	}
	var ends []*end
	for _, e := range s.sessionsInOrderLocked() {
		ends = append(ends, e.conn)
	}
	s.cluster.mu.Unlock()
	for _, e := range ends {
		n := e.link.net
		n.mu.Lock()
		e.link.resetLocked()
		n.mu.Unlock()
	}
}

// sessionsInOrderLocked are the sessions, the oldest first.
func (s *server) sessionsInOrderLocked() []*session {
	var all []*session
	for pid := uint32(0); pid <= s.lastPID; pid++ {
		if one := s.sessions[pid]; one != nil {
			all = append(all, one)
		}
	}
	return all
}

// restart starts a server that is down.
func (s *server) restart() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	if !s.up {
		s.startLocked()
	}
}

// freeze stops the server's processes; the system goes on taking connections for it.
func (s *server) freeze() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	if s.up && s.thawed == nil {
		s.thawed = make(chan struct{})
	}
}

func (s *server) thaw() {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	if s.thawed != nil {
		close(s.thawed)
		s.thawed = nil
	}
}

func (s *server) set(f func()) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	f()
}

// accept: the system takes the connections of a frozen server.
func (s *server) accept() bool {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	return s.up && !s.closed
}

// at is the server with an address.
func (c *cluster) at(address string) *server {
	return c.servers[slices.IndexFunc(c.servers, func(s *server) bool { return address == s.name+":5432" })]
}

// took is how long something takes.
func (c *cluster) took(most time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.random.Int64N(int64(most)) + 1)
}
