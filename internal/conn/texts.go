package conn

import (
	"sync"
	"sync/atomic"
)

// texts are what a pool knows of the texts that were prepared. What a text means depends on the schema, the search_path and the time at
// which it is parsed, so a new Prepare parses it anew, as with the bare driver, and its statements end with the last Stmt's Close.
// Only a sql.Stmt that there is may be executed with what a connection has kept.
type texts struct {
	freed atomic.Uint64 // counts texts that are no longer to be kept

	mu      sync.Mutex // guards what follows, and what is in it
	counter uint64
	byQuery map[string]*text
}

// text is one that was prepared.
type text struct {
	latest uint64      // texts.counter when it was last prepared for a new sql.Stmt
	stmts  int         // of all logical connections
	freed  atomic.Bool // no connection is to keep it
}

// mostTexts bounds what is remembered. A text that was forgotten is parsed anew once.
const mostTexts = 4096

// begin counts a Stmt of a text in, and says which version of it is wanted at least.
func (t *texts) begin(query string) (entry *text, version uint64) {
	var pcs [8]uintptr
	// Not runtime.Callers, findCaller, this, and PrepareContext.
	again := findCaller(4, pcs[:], callerStmt, callerPrepare) == callerStmt
	t.mu.Lock()
	defer t.mu.Unlock()
	entry = t.byQuery[query]
	switch {
	case entry == nil && len(t.byQuery) >= mostTexts:
		clear(t.byQuery)
	case t.byQuery == nil:
		t.byQuery = make(map[string]*text)
	}
	if entry == nil {
		entry, again = new(text), false
		t.byQuery[query] = entry
	}
	entry.stmts++
	if !again {
		t.counter++
		entry.latest = t.counter
	}
	return entry, entry.latest
}

// end counts a Stmt out. After the last Close by a sql.Stmt no connection keeps the text; one that was closed with its logical
// connection says nothing of the sql.Stmt.
func (t *texts) end(query string, entry *text, withConn bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entry.stmts--
	if withConn || entry.stmts > 0 || entry.freed.Load() {
		return
	}
	if t.byQuery[query] == entry {
		delete(t.byQuery, query)
	}
	entry.freed.Store(true)
	t.freed.Add(1)
}
