package conn

import (
	"container/list"
	"database/sql/driver"
	"os"
	"slices"

	"github.com/managedpg/managedpg/internal/sqltext"
	"github.com/managedpg/managedpg/internal/wire"
)

// stmtCache is a physical connection's prepared statements when the driver governs: those that are kept for their text's next Stmt, of
// which the least recently used goes first, and those that aren't. It belongs to whoever holds the connection, so it needs no
// lock.
//
// The nil cache is that of a connection that is one logical connection's for life, which keeps nothing for anybody else.
type stmtCache struct {
	limit   int
	byQuery map[string]*cachedStmt
	recent  list.List     // of *cachedStmt, the most recently used first
	loose   []*cachedStmt // not kept: closed by their last user or, at the latest, before the connection's next one
	user    uint64        // counts the connection's users
	freed   uint64        // texts.freed when it was last tidied up
}

type cachedStmt struct {
	base    driver.Stmt
	query   string
	in      *stmtCache    // the connection's; set when added
	text    *text         // nil in the nil cache
	version uint64        // see texts
	phys    *physical     // that it is prepared on
	user    uint64        // the last of the connection's users that used it
	refs    int           // Stmts by which that one does
	place   *list.Element // nil if it isn't kept
}

// keptStatements is how many statements each connection keeps. pool_reset=discard_all leaves none to keep.
func (p *Pool) keptStatements() int {
	if p.opts.DiscardAll {
		return 0
	}
	return p.opts.StatementCache
}

func newStmtCache(limit int) *stmtCache {
	return &stmtCache{limit: limit, byQuery: make(map[string]*cachedStmt)}
}

// get finds a statement of the version, or a later one, for one more Stmt. An older one is closed, unless it is in use on this
// connection: then it is shared, as the base drivers do.
func (c *stmtCache) get(query string, version uint64) *cachedStmt {
	if c == nil {
		return nil
	}
	s := c.byQuery[query]
	switch {
	case s == nil:
	case s.version < version && !c.uses(s):
		_ = c.drop(s)
		return nil
	default:
		c.use(s)
	}
	return s
}

// add takes in a statement with one Stmt.
func (c *stmtCache) add(s *cachedStmt) *cachedStmt {
	s.refs = 1
	if c == nil {
		return s
	}
	s.in, s.user = c, c.user
	if sqltext.IsCopy(s.query) {
		c.loose = append(c.loose, s)
		return s
	}
	s.place = c.recent.PushFront(s)
	c.byQuery[s.query] = s
	c.trim()
	return s
}

// use counts one more Stmt.
func (c *stmtCache) use(s *cachedStmt) {
	if s.user != c.user {
		s.user, s.refs = c.user, 0
	}
	s.refs++
	if s.place != nil {
		c.recent.MoveToFront(s.place)
	}
}

func (c *stmtCache) uses(s *cachedStmt) bool { return s.user == c.user && s.refs > 0 }

// release counts one Stmt less, and closes the statement if it is nobody's any more.
func (c *stmtCache) release(s *cachedStmt) error {
	s.refs--
	switch {
	case s.refs > 0:
		return nil
	case c == nil:
		return s.close(true)
	case s.place == nil || s.text.freed.Load():
		c.remove(s)
		return s.close(true)
	default:
		c.trim()
		return nil
	}
}

// evict keeps a statement no longer. It is closed when it is no longer in use.
func (c *stmtCache) evict(s *cachedStmt) {
	if c == nil || s.place == nil {
		return
	}
	c.unkeep(s)
	c.loose = append(c.loose, s)
}

func (c *stmtCache) unkeep(s *cachedStmt) {
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
		c.unkeep(e.Value.(*cachedStmt))
	}
	c.loose = nil
}

// close closes all statements.
func (c *stmtCache) close() {
	if c == nil {
		return
	}
	for e := c.recent.Front(); e != nil; e = c.recent.Front() {
		_ = c.drop(e.Value.(*cachedStmt))
	}
	for len(c.loose) > 0 {
		_ = c.drop(c.loose[0])
	}
}

// next is called when the connection is given back: what its user had is in use no more.
func (c *stmtCache) next() {
	if c != nil {
		c.user++
	}
}

// tidy closes, before the connection's next user comes, what isn't to be kept: loose statements, those beyond the limit, and those of
// texts that were freed since.
func (c *stmtCache) tidy(freed uint64) {
	if c == nil {
		return
	}
	c.trim()
	for len(c.loose) > 0 {
		_ = c.drop(c.loose[len(c.loose)-1])
	}
	if c.freed == freed {
		return
	}
	for e := c.recent.Front(); e != nil; {
		s := e.Value.(*cachedStmt)
		e = e.Next()
		if s.text.freed.Load() {
			_ = c.drop(s)
		}
	}
	c.freed = freed
}

// isTidy says that tidy has nothing to do.
func (c *stmtCache) isTidy(t *texts) bool {
	return c == nil || c.freed == t.freed.Load() && len(c.loose) == 0 && c.recent.Len() <= c.limit
}

func (c *stmtCache) trim() {
	for e := c.recent.Back(); e != nil && c.recent.Len() > c.limit; {
		s := e.Value.(*cachedStmt)
		e = e.Prev()
		if !c.uses(s) {
			_ = c.drop(s)
		}
	}
}

// drop closes a statement that isn't in use, for somebody else's sake.
func (c *stmtCache) drop(s *cachedStmt) error {
	c.remove(s)
	return s.close(false)
}

func (c *stmtCache) remove(s *cachedStmt) {
	if s.place != nil {
		c.unkeep(s)
	} else if i := slices.Index(c.loose, s); i >= 0 {
		c.loose = slices.Delete(c.loose, i, i+1)
	}
}

// close is a round trip, for which a server that doesn't answer gets wire.CloseLimit: the base drivers wait for longer, and
// database/sql closes statements where nobody's context holds. Not so in a transaction, which would be lost with the connection, nor when its user
// closes a COPY, of which lib/pq sends the end then, and waits until the server has taken everything in.
func (s *cachedStmt) close(byUser bool) error {
	if !(byUser && sqltext.IsCopy(s.query)) && s.phys.outsideTx() {
		defer s.phys.sock.Limit(wire.CloseLimit, os.ErrDeadlineExceeded)()
	}
	return s.base.Close()
}
