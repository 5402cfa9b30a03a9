package conn

import (
	"context"
	"reflect"
	"sync/atomic"
)

// openerDetector recognises a Connect that comes from sql.DB's own goroutine, which opens connections one after the other
// when SetMaxOpenConns is in force. What it gets may be handed to anybody, or lie in sql.DB's free list without a hook
// being called; so such a connection must hold nothing until its first call.
//
// The opener's context is always the same one, made by WithCancel from the background; a tracer may have put values around it.
// So only a context like that costs a look at the stack, and the opener's only once. A request's is made from one with values.
type openerDetector struct {
	opener atomic.Pointer[<-chan struct{}] // Done of its context
}

// How many frames are looked at. Mostly database/sql stands right behind driver.Connector; but Connect may be wrapped a few
// times (by tracers), and each frame costs.
const (
	fewFrames  = 2
	manyFrames = 8
)

// seen says that SetMaxOpenConns is in force, or was.
func (d *openerDetector) seen() bool { return d.opener.Load() != nil }

func (d *openerDetector) is(ctx context.Context) bool {
	if !mayBeOpeners(ctx) {
		return false
	}
	if known := d.opener.Load(); known != nil && *known == ctx.Done() {
		return true
	}
	var pcs [manyFrames]uintptr
	const skipped = 4 // runtime.Callers, findCaller, this, Pool.Connect
	found := findCaller(skipped, pcs[:fewFrames], callerOpener, callerSQL)
	if found == callerUnknown {
		found = findCaller(skipped, pcs[:], callerOpener, callerSQL)
	}
	if found != callerOpener {
		return false
	}
	done := ctx.Done()
	d.opener.Store(&done)
	return true
}

func mayBeOpeners(ctx context.Context) bool {
	if ctx.Done() == nil {
		return false
	}
	for parentsKnown {
		switch reflect.TypeOf(ctx) {
		case valueCtx:
			ctx = parentOf(ctx)
		case cancelCtx:
			return parentOf(ctx) == context.Background()
		default:
			_, limited := ctx.Deadline()
			return !limited
		}
	}
	_, limited := ctx.Deadline()
	return !limited
}

// The types of the contexts that WithCancel and WithValue make. They embed their parent, which the package context doesn't
// promise: where it can't be seen each context that can be cancelled costs a look at the stack.
var (
	cancelCtx    = reflect.TypeOf(withCancel(context.Background()))
	valueCtx     = reflect.TypeOf(context.WithValue(context.Background(), attemptKey{}, nil))
	parentsKnown = embedsParent(cancelCtx) && embedsParent(valueCtx)
)

func embedsParent(t reflect.Type) bool {
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct || t.Elem().NumField() == 0 {
		return false
	}
	first := t.Elem().Field(0)
	return first.Anonymous && first.IsExported() && first.Type == reflect.TypeFor[context.Context]()
}

// parentOf is the first field of a context of one of these types.
func parentOf(ctx context.Context) context.Context {
	parent, _ := reflect.ValueOf(ctx).Elem().Field(0).Interface().(context.Context)
	return parent
}

func withCancel(parent context.Context) context.Context {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	return ctx
}
