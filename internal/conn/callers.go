package conn

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// What database/sql doesn't say when it calls, the frames of its functions on the stack do.

// caller is what a frame of database/sql's tells of a call.
type caller uint8

const (
	callerUnknown caller = iota
	callerSQL            // database/sql, and no more than that
	callerOpener         // sql.DB's goroutine that opens connections for whoever comes
	callerGrab           // DB.conn, which takes a connection for a call
	callerPrepare        // a Prepare
	callerStmt           // a sql.Stmt that there is
	callerEnd            // the end of a connection
)

// knownCallers are the return addresses seen so far, copied on write.
var knownCallers struct {
	sync.Mutex
	byPC atomic.Pointer[map[uintptr]caller]
}

// findCaller is the first of the frames that is one of those meant. Of the frames skip are left out, runtime.Callers' and its own
// among them, and at most as many as pcs has room for are looked at.
func findCaller(skip int, pcs []uintptr, meant ...caller) caller {
	for _, pc := range pcs[:runtime.Callers(skip, pcs)] {
		found := callerAt(pc)
		for _, m := range meant {
			if found == m {
				return found
			}
		}
	}
	return callerUnknown
}

func callerAt(pc uintptr) caller {
	known := knownCallers.byPC.Load()
	if known != nil {
		if found, ok := (*known)[pc]; ok {
			return found
		}
	}
	knownCallers.Lock()
	defer knownCallers.Unlock()
	next := map[uintptr]caller{pc: nameCaller(pc)}
	if known = knownCallers.byPC.Load(); known != nil {
		for k, v := range *known {
			next[k] = v
		}
	}
	knownCallers.byPC.Store(&next)
	return next[pc]
}

func nameCaller(pc uintptr) caller {
	found := callerUnknown
	for frames, more := runtime.CallersFrames([]uintptr{pc}), true; more; {
		var f runtime.Frame
		f, more = frames.Next()
		_, name, ours := strings.Cut(f.Function, "database/sql.") // a copy of it under another path too
		switch {
		case !ours:
		case name == "(*DB).openNewConnection":
			return callerOpener
		case name == "(*DB).conn":
			return callerGrab
		case strings.HasPrefix(name, "(*DB).prepareDC"):
			return callerPrepare
		case strings.HasPrefix(name, "(*Stmt)."), strings.HasPrefix(name, "(*Tx).StmtContext"):
			return callerStmt
		case name == "(*driverConn).finalClose":
			return callerEnd
		default:
			found = callerSQL
		}
	}
	return found
}
