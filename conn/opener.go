package conn

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
)

// openerDetector recognises a Connect that comes from sql.DB's own goroutine, which opens connections one after the other
// when SetMaxOpenConns is in force. What it gets may be handed to anybody, or lie in sql.DB's free list without a hook
// being called; so such a connection must hold nothing until its first call.
//
// The opener's context can be cancelled and has no deadline, and is always the same one. So only a context like that
// costs a look at the stack, and the opener's only once.
type openerDetector struct {
	opener atomic.Pointer[context.Context]
	places atomic.Pointer[map[uintptr]place] // what stands at a return address, copied on write
}

// place is what a frame of the stack tells about who called Connect.
type place int

const (
	elsewhere place = iota
	forCaller       // database/sql, for the one who asked
	forOpener       // database/sql's opener
)

// How many frames are looked at. Mostly database/sql stands right behind driver.Connector; but Connect may be wrapped a few
// times (by tracers), and each frame costs.
const (
	fewFrames  = 2
	manyFrames = 8
)

func (d *openerDetector) is(ctx context.Context) bool {
	if ctx.Done() == nil {
		return false
	}
	if _, limited := ctx.Deadline(); limited {
		return false
	}
	if known := d.opener.Load(); known != nil && *known == ctx {
		return true
	}
	var pcs [manyFrames]uintptr
	const skipped = 3 // runtime.Callers, this, Pool.Connect
	found := d.first(pcs[:runtime.Callers(skipped, pcs[:fewFrames])])
	if found == elsewhere {
		found = d.first(pcs[:runtime.Callers(skipped, pcs[:])])
	}
	if found != forOpener {
		return false
	}
	opener := ctx // ctx itself would be moved to the heap at every call
	d.opener.Store(&opener)
	return true
}

// first is the first of the return addresses that tells.
func (d *openerDetector) first(pcs []uintptr) place {
	for _, pc := range pcs {
		if found := d.place(pc); found != elsewhere {
			return found
		}
	}
	return elsewhere
}

// place looks a return address up, and the first time it is seen, by its function's name.
func (d *openerDetector) place(pc uintptr) place {
	places := d.places.Load()
	if places != nil {
		if found, ok := (*places)[pc]; ok {
			return found
		}
	}
	next := map[uintptr]place{pc: placeOf(pc)}
	if places != nil {
		for k, v := range *places {
			next[k] = v
		}
	}
	d.places.Store(&next)
	return next[pc]
}

func placeOf(pc uintptr) place {
	frames := runtime.CallersFrames([]uintptr{pc})
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "database/sql.(*DB).openNewConnection":
			return forOpener
		case strings.HasPrefix(f.Function, "database/sql."):
			return forCaller
		case !more:
			return elsewhere
		}
	}
}
