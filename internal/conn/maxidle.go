package conn

import (
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
)

// maxIdleClosed counts the connections that sql.DB closes as soon as they are given back, since it keeps as many as SetMaxIdleConns says
// (2 unless it is called), until there are so many in so short a time that the program must be told.
type maxIdleClosed struct {
	mu    sync.Mutex
	n     int
	since time.Duration // when the first of them was closed, by clock.Now()
	told  bool
}

const (
	maxIdleAtOnce = 50 * time.Millisecond // closed sooner after its check-in than that, it was for want of room
	maxIdleMany   = 100
	maxIdleSoon   = 10 * time.Second
)

// closed notes a connection that was closed now and had been free since then; true: this is the time to tell, and how long it has taken.
func (m *maxIdleClosed) closed(freeSince time.Duration) (took time.Duration, tell bool) {
	at := clock.Now()
	if at-freeSince > maxIdleAtOnce {
		return 0, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.n == 0 || at-m.since > maxIdleSoon {
		m.n, m.since = 0, at
	}
	m.n++
	if m.n < maxIdleMany || m.told {
		return 0, false
	}
	m.told = true
	return at - m.since, true
}

// closedIdle is called for a free connection that sql.DB closes where it governs the pool.
func (p *Pool) closedIdle(ph *physical) {
	if took, tell := p.warned.maxIdle.closed(ph.freeSince); tell {
		p.opts.Logger().Warn("managedpg: database/sql closes connections as they are given back, so that calls open new ones: "+
			"call SetMaxIdleConns, which is 2 otherwise, or give pool_size", "pool", p.opts.Name, "closed", maxIdleMany, "within", took)
	}
}
