package conn

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// preparing tells which of the statements that connections keep a Prepare may be answered with. What a text means depends on the
// schema, the search_path and the time at which it is parsed, so a new Prepare parses it anew, as with the bare driver. Only
// when database/sql prepares the statement of a living sql.Stmt once more, for another connection, one will do that was made since
// the text was prepared for a new one last.
type preparing struct {
	places  atomic.Pointer[map[uintptr]preparer] // what stands at a return address, copied on write
	mu      sync.Mutex                           // guards what follows, and changes of places
	counter uint64
	latest  map[string]uint64 // of a text: the counter when it was last prepared for a new sql.Stmt
}

// mostTexts bounds what latest remembers. A text that was forgotten is parsed anew once.
const mostTexts = 4096

// begin says which version of the text is wanted.
func (p *preparing) begin(query string) (version uint64) {
	again := p.again()
	p.mu.Lock()
	defer p.mu.Unlock()
	version, known := p.latest[query]
	if again && known {
		return version
	}
	if len(p.latest) >= mostTexts {
		clear(p.latest)
	}
	if p.latest == nil {
		p.latest = make(map[string]uint64)
	}
	p.counter++
	p.latest[query] = p.counter
	return p.counter
}

// preparer is who called PrepareContext, as far as a frame of the stack tells.
type preparer int

const (
	nobody   preparer = iota
	newStmt           // a Prepare
	oldStmt           // database/sql, for a sql.Stmt that there is
	unlooked = 8      // frames at most between
)

// again says whether it is database/sql that prepares the statement of a sql.Stmt once more. It doesn't say so of itself: its own frames
// do.
func (p *preparing) again() bool {
	var pcs [unlooked]uintptr
	for _, pc := range pcs[:runtime.Callers(4, pcs[:])] { // not runtime.Callers, this, begin and PrepareContext's own
		switch p.at(pc) {
		case oldStmt:
			return true
		case newStmt:
			return false
		}
	}
	return false
}

func (p *preparing) at(pc uintptr) preparer {
	if known := p.places.Load(); known != nil {
		if who, ok := (*known)[pc]; ok {
			return who
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[uintptr]preparer)
	if known := p.places.Load(); known != nil {
		for k, v := range *known {
			next[k] = v
		}
	}
	next[pc] = preparerAt(pc)
	p.places.Store(&next)
	return next[pc]
}

func preparerAt(pc uintptr) preparer {
	frames := runtime.CallersFrames([]uintptr{pc})
	for {
		f, more := frames.Next()
		switch {
		case strings.HasPrefix(f.Function, "database/sql.(*DB).prepareDC"):
			return newStmt
		case strings.HasPrefix(f.Function, "database/sql.(*Stmt)."), strings.HasPrefix(f.Function, "database/sql.(*Tx).StmtContext"):
			return oldStmt
		case !more:
			return nobody
		}
	}
}
