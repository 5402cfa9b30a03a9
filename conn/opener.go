package conn

import (
	"context"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
)

// openerDetector recognises a Connect that comes from sql.DB's own goroutine, which opens connections one after the other
// when SetMaxOpenConns is in force. What it gets may be handed to anybody, or lie in sql.DB's free list without a hook
// being called; so such a connection must hold nothing until its first call.
//
// The opener's context is always the same one, made by WithCancel from the background. So only a context like that costs a
// look at the stack, and the opener's only once. A request's context comes from one with values.
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
	if !mayBeOpeners(ctx) {
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

func mayBeOpeners(ctx context.Context) bool {
	return reflect.TypeOf(ctx) == cancelCtx && (!parentKnown || parentOf(ctx) == any(context.Background()))
}

// cancelCtx is the type of the contexts that WithCancel makes. They embed their parent, which the package context doesn't
// promise: where it can't be seen each of them costs a look at the stack.
var (
	cancelCtx   = reflect.TypeOf(withCancel(context.Background()))
	parentKnown = embedsParent()
)

func embedsParent() bool {
	if cancelCtx.Kind() != reflect.Pointer || cancelCtx.Elem().Kind() != reflect.Struct || cancelCtx.Elem().NumField() == 0 {
		return false
	}
	first := cancelCtx.Elem().Field(0)
	return first.IsExported() && first.Type == reflect.TypeFor[context.Context]() &&
		parentOf(withCancel(context.Background())) == any(context.Background())
}

// parentOf is the first field of a context of the type cancelCtx.
func parentOf(ctx context.Context) any { return reflect.ValueOf(ctx).Elem().Field(0).Interface() }

func withCancel(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	return ctx
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
