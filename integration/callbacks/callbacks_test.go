//go:build cgo

package callbacks_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/managedpg/managedpg/integration/callbacks"
	"github.com/managedpg/managedpg/internal/stack"
	"github.com/managedpg/managedpg/leak"
)

// compare says whether the stack of its caller is what the runtime says.
//
//go:noinline
func compare(t *testing.T) {
	for range 3 { // the first may be kept, the others found
		var own *stack.Stack
		got := stack.Callers(64, &own).PCs()
		want := make([]uintptr, 64)
		want = want[:runtime.Callers(2, want)]
		if !slices.Equal(got, want) {
			t.Errorf("the stack is %s, the runtime's is %s", names(got), names(want))
		}
	}
}

func names(pcs []uintptr) string {
	var b strings.Builder
	for it := runtime.CallersFrames(pcs); ; {
		f, more := it.Next()
		fmt.Fprintf(&b, "%s:%d ", f.Function, f.Line)
		if !more {
			return b.String()
		}
	}
}

// here is an address on the goroutine's stack, as C might have left one.
//
//go:noinline
func here() uintptr {
	var x byte
	return uintptr(unsafe.Pointer(&x))
}

func everyFrame(f func(frame uintptr)) {
	onHeap := new([4]uintptr)
	for _, frame := range []uintptr{0, 1, 8, ^uintptr(0), ^uintptr(0) - 15, here(), here() + 256, uintptr(unsafe.Pointer(onHeap))} {
		f(frame)
	}
	runtime.KeepAlive(onHeap)
}

// A callback's stack is as exact as any, whatever C has done with the frame pointer: on Go's threads, on C's, and nested.
func TestStackInCallbacks(t *testing.T) {
	stop := make(chan struct{})
	var collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				everyFrame(func(frame uintptr) {
					callbacks.Call(func() { compare(t) }, frame)
					callbacks.Call(func() {
						compare(t)
						callbacks.Call(func() { compare(t) }, frame)
						deep(30, func() { callbacks.Call(func() { deep(30, func() { compare(t) }) }, frame) })
						compare(t)
					}, frame)
					if err := callbacks.CallOnThread(func() {
						compare(t)
						callbacks.Call(func() { compare(t) }, frame)
					}, frame, 3); err != nil {
						t.Error(err)
					}
					compare(t)
				})
			}
		})
	}
	wg.Wait()
	close(stop)
	collector.Wait()
}

// deep grows the stack.
//
//go:noinline
func deep(n int, f func()) byte {
	var large [1024]byte
	if n == 0 {
		f()
		return 0
	}
	large[n] = deep(n-1, f)
	return large[n]
}

// A checkout in a callback has its caller's name.
func TestCheckOutInCallback(t *testing.T) {
	tracker := leak.New(leak.Options{StackDepth: 16})
	slot := tracker.Slot(1, "db:5432/app", 1, nil)
	defer slot.Remove()
	everyFrame(func(frame uintptr) {
		callbacks.Call(func() { checkOutHere(slot) }, frame)
		wantCaller(t, tracker)
		slot.CheckIn(2 * time.Second)
		if err := callbacks.CallOnThread(func() { checkOutHere(slot) }, frame, 1); err != nil {
			t.Fatal(err)
		}
		wantCaller(t, tracker)
		slot.CheckIn(2 * time.Second)
	})
}

//go:noinline
func checkOutHere(s *leak.Slot) { s.CheckOut(context.Background(), time.Second) }

func wantCaller(t *testing.T, tracker *leak.Tracker) {
	t.Helper()
	if longest := tracker.Longest(1); len(longest) != 1 || !strings.HasSuffix(longest[0].Caller, "checkOutHere") {
		t.Errorf("the checkout is %v", longest)
	}
}
