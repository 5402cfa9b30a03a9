package stack

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
)

// chain is a stack to be built: of calls of the kinds in steps, with check at its end.
type chain struct {
	steps []uint8
	check func()
}

// next makes the following call. Each kind has a pc of its own in here.
//
//go:noinline
func (c *chain) next(at int) {
	if at == len(c.steps) {
		c.check()
		return
	}
	if k := int(c.steps[at]); k%2 == 0 {
		kinds[k/2].call(c, at+1)
	} else { // the same from another line
		kinds[k/2].call(c, at+1)
	}
}

type kind struct {
	name string
	call func(c *chain, at int)
	none bool // the return addresses don't tell the stack
}

// kinds are all ways of being called. It is filled by init since they call each other.
var kinds []kind

func init() {
	kinds = []kind{
		{name: "function", call: plain},
		{name: "inlined", call: func(c *chain, at int) { inlinedTwice(c, at) }},
		{name: "closure", call: closure},
		{name: "generic of a word", call: func(c *chain, at int) { generic(c, at, 1) }},
		{name: "generic of a string", call: func(c *chain, at int) { generic(c, at, "") }},
		{name: "generic method", call: func(c *chain, at int) { box[[]int]{}.call(c, at) }},
		{name: "method value", call: func(c *chain, at int) { valued(caller.call, c, at) }},
		{name: "bound method value", call: func(c *chain, at int) { f := (caller{}).call; f(c, at) }},
		{name: "promoted method", call: func(c *chain, at int) { (&outer{&inner{}}).call(c, at) }},
		{name: "promoted method in an interface", call: func(c *chain, at int) { through(&outer{&inner{}}, c, at) }},
		{name: "interface's wrapper", call: func(c *chain, at int) { through(&caller{}, c, at) }},
		{name: "embedded interface", call: func(c *chain, at int) { through(struct{ calls }{&caller{}}, c, at) }},
		{name: "defer", call: deferred},
		{name: "defer of a method", call: deferredMethod},
		{name: "defer in a loop", call: deferredLoop},
		{name: "panic being recovered", call: panicking},
		{name: "after a panic", call: func(c *chain, at int) { recovered(); c.next(at) }},
		{name: "second panic", call: panickingTwice},
		{name: "nil pointer in a function without a frame", call: faulting, none: true},
		{name: "reflect.Call", call: func(c *chain, at int) { reflect.ValueOf(plain).Call(values(c, at)) }},
		{name: "reflect.Call of a method", call: func(c *chain, at int) { reflect.ValueOf(caller{}).Method(0).Call(values(c, at)) }},
		{name: "reflect's method value", call: func(c *chain, at int) {
			reflect.ValueOf(caller{}).Method(0).Interface().(func(*chain, int))(c, at)
		}},
		{name: "reflect.MakeFunc", call: made},
		{name: "goroutine", call: func(c *chain, at int) { started(func() { c.next(at) }) }},
		{name: "goroutine of a method", call: startedMethod},
		{name: "recursion", call: func(c *chain, at int) { recursion(c, at, 3) }},
		{name: "stack growth", call: func(c *chain, at int) { started(func() { growth(c, at, 12) }) }},
		{name: "sort", call: func(c *chain, at int) { sorted(c, at) }},
		{name: "once", call: func(c *chain, at int) { new(sync.Once).Do(func() { c.next(at) }) }},
		{name: "range over a function", call: ranged},
		{name: "range over a function that is inlined", call: func(c *chain, at int) {
			for i := range slices.Values([]int{at}) {
				c.next(i)
			}
		}},
	}
}

//go:noinline
func plain(c *chain, at int) { c.next(at) }

func inlined(c *chain, at int)      { c.next(at) }
func inlinedTwice(c *chain, at int) { inlined(c, at) }

//go:noinline
func closure(c *chain, at int) {
	f := func() { c.next(at) }
	run(f)
}

//go:noinline
func run(f func()) { f() }

//go:noinline
func generic[T any](c *chain, at int, _ T) { func(T) { c.next(at) }(*new(T)) }

type box[T any] struct{ _ T }

//go:noinline
func (box[T]) call(c *chain, at int) { c.next(at) }

type calls interface{ call(c *chain, at int) }

type caller struct{}

func (caller) call(c *chain, at int) { c.next(at) }

// Call is what reflection can see.
func (caller) Call(c *chain, at int) { c.next(at) }

type inner struct{ _ [3]int }

//go:noinline
func (*inner) call(c *chain, at int) { c.next(at) }

type outer struct{ *inner }

//go:noinline
func through(i calls, c *chain, at int) { i.call(c, at) }

//go:noinline
func valued(f func(caller, *chain, int), c *chain, at int) { f(caller{}, c, at) }

//go:noinline
func deferred(c *chain, at int) { defer func() { c.next(at) }() }

//go:noinline
func deferredMethod(c *chain, at int) {
	defer c.next(at)
	if at < 0 {
		return
	}
	defer run(func() {})
}

//go:noinline
func deferredLoop(c *chain, at int) {
	for i := range 2 {
		defer func() {
			if i == 0 {
				c.next(at)
			}
		}()
	}
}

//go:noinline
func panicking(c *chain, at int) {
	defer func() {
		c.next(at)
		recover()
	}()
	panic(at)
}

//go:noinline
func panickingTwice(c *chain, at int) {
	defer func() { recover() }()
	defer func() {
		c.next(at)
		panic(2)
	}()
	panic(1)
}

//go:noinline
func recovered() {
	defer func() { recover() }()
	panic(1)
}

//go:noinline
func faulting(c *chain, at int) {
	defer func() {
		c.next(at)
		recover()
	}()
	if at%2 == 0 {
		load(nil)
	} else {
		load(nil)
	}
}

// load has no frame: when it faults, the chain of frame pointers doesn't have the line that called it.
//
//go:noinline
func load(p *int) int { return *p }

func values(c *chain, at int) []reflect.Value {
	return []reflect.Value{reflect.ValueOf(c), reflect.ValueOf(at)}
}

//go:noinline
func made(c *chain, at int) {
	reflect.MakeFunc(reflect.TypeOf(func() {}), func([]reflect.Value) []reflect.Value {
		c.next(at)
		return nil
	}).Interface().(func())()
}

//go:noinline
func started(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

type starter struct {
	c    *chain
	done chan struct{}
}

func (s starter) start(at int) {
	s.c.next(at)
	close(s.done)
}

//go:noinline
func startedMethod(c *chain, at int) {
	s := starter{c, make(chan struct{})}
	go s.start(at)
	<-s.done
}

//go:noinline
func recursion(c *chain, at, n int) {
	if n == 0 {
		c.next(at)
		return
	}
	recursion(c, at, n-1)
}

// growth doubles its goroutine's stack some times on the way down.
//
//go:noinline
func growth(c *chain, at, n int) byte {
	var large [2048]byte
	if n == 0 {
		c.next(at)
		return 0
	}
	large[n] = growth(c, at, n-1)
	return large[n]
}

//go:noinline
func sorted(c *chain, at int) {
	once := true
	slices.SortFunc([]int{2, 1}, func(a, b int) int {
		if once {
			once = false
			c.next(at)
		}
		return a - b
	})
}

//go:noinline
func ranged(c *chain, at int) {
	for i := range func(yield func(int) bool) { yield(at) } {
		c.next(i)
	}
}

func randomSteps(r *rand.Rand) []uint8 {
	steps := make([]uint8, 1+r.IntN(10))
	for i := range steps {
		steps[i] = uint8(r.IntN(2 * len(kinds)))
	}
	return steps
}

// compare says how Callers and the runtime differ, and whether Callers had to ask the runtime.
//
//go:noinline
func compare(t *testing.T, depth int) (asked bool) {
	var own *Stack
	got := Callers(depth, &own).PCs()
	want := make([]uintptr, depth)
	want = want[:runtimeCallers(want)]
	if !slices.Equal(got, want) {
		t.Errorf("depth %d: the stack is\n%s\nthe runtime's is\n%s", depth, names(got), names(want))
	}
	return own != nil
}
