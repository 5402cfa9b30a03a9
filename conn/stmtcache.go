package conn

import (
	"container/list"
	"database/sql/driver"
	"os"
	"time"

	"github.com/managedpg/managedpg/internal/sqltext"
)

// stmtCache keeps a physical connection's prepared statements, so that one that a logical connection closes is there for
// the next. The least recently used goes first; one in use stays, even beyond the limit. It belongs to whoever holds the
// connection, so it needs no lock. A nil cache keeps nothing.
type stmtCache struct {
	limit   int
	byQuery map[string]*cachedStmt
	recent  list.List // of *cachedStmt, the most recently used first
}

type cachedStmt struct {
	base    driver.Stmt
	query   string
	version uint64        // see preparing
	sock    *socket       // the connection's, nil if it isn't ours
	refs    int           // logical statements that use it
	place   *list.Element // nil once it has left the cache: then the last user closes it
}

// keepsStatements says whether a connection of the pool keeps its statements for its next user.
func (p *Pool) keepsStatements() bool {
	return p.governed && p.opts.StatementCache > 0 && !p.opts.DiscardAll
}

func newStmtCache(limit int) *stmtCache {
	return &stmtCache{limit: limit, byQuery: make(map[string]*cachedStmt)}
}

// get finds a statement of a version and counts one more user. One of another version is closed, unless it is in use on this
// connection: then it is shared, as the base drivers do.
func (c *stmtCache) get(query string, version uint64) *cachedStmt {
	if c == nil {
		return nil
	}
	s := c.byQuery[query]
	switch {
	case s == nil:
	case s.version != version && s.refs == 0:
		c.drop(s)
		return nil
	default:
		s.refs++
		c.recent.MoveToFront(s.place)
	}
	return s
}

// add puts a statement with one user into the cache.
func (c *stmtCache) add(query string, version uint64, base driver.Stmt, sock *socket) *cachedStmt {
	s := &cachedStmt{base: base, sock: sock, query: query, version: version, refs: 1}
	if c == nil || sqltext.IsCopy(query) {
		return s
	}
	s.place = c.recent.PushFront(s)
	c.byQuery[query] = s
	c.trim()
	return s
}

// release counts one user less, and closes the statement if it is nobody's any more.
func (c *stmtCache) release(s *cachedStmt) error {
	s.refs--
	switch {
	case s.refs > 0:
		return nil
	case s.place == nil:
		return s.close()
	default:
		c.trim()
		return nil
	}
}

// evict takes a statement out of the cache. Its last user closes it.
func (c *stmtCache) evict(s *cachedStmt) {
	if c == nil || s.place == nil {
		return
	}
	c.recent.Remove(s.place)
	delete(c.byQuery, s.query)
	s.place = nil
}

// clear empties the cache of a session whose server has forgotten its statements: there is nothing to close.
func (c *stmtCache) clear() {
	if c == nil {
		return
	}
	for e := c.recent.Front(); e != nil; e = c.recent.Front() {
		c.evict(e.Value.(*cachedStmt))
	}
}

func (c *stmtCache) trim() {
	for e := c.recent.Back(); e != nil && c.recent.Len() > c.limit; {
		s := e.Value.(*cachedStmt)
		e = e.Prev()
		if s.refs == 0 {
			c.drop(s)
		}
	}
}

func (c *stmtCache) drop(s *cachedStmt) {
	c.evict(s)
	if s.refs == 0 {
		_ = s.close()
	}
}

// close is a round trip, for which a server that doesn't answer gets closeLimit: the base drivers wait for longer, and
// database/sql closes statements where nobody's context holds.
func (s *cachedStmt) close() error {
	if s.sock != nil {
		limit := time.AfterFunc(closeLimit, func() { s.sock.closeFor(os.ErrDeadlineExceeded) })
		defer limit.Stop()
	}
	return s.base.Close()
}
