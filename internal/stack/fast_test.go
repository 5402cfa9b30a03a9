//go:build (amd64 || arm64) && (linux || darwin) && !purego && !msan

package stack

import (
	"sync"
	"testing"
)

func forget() {
	for i := range stacks.buckets {
		stacks.buckets[i].Store(nil)
	}
	stacks.count.Store(0)
}

// Each kind of call is found by its return addresses, but for the one that they don't tell.
func TestKinds(t *testing.T) {
	for i, k := range kinds {
		for line := range 2 {
			forget()
			for try := range 3 {
				c := chain{steps: []uint8{0, uint8(2*i + line), 0}}
				c.check = func() {
					if asked := compare(t, 16); asked != (k.none && try > 0) {
						t.Errorf("%s: the runtime was asked: %t", k.name, asked)
					}
				}
				c.next(0)
			}
		}
	}
}

// A function without a frame that faults hides its caller's line from the frame pointers, but not from us.
func TestFaultsByLine(t *testing.T) {
	forget()
	var own *Stack
	seen := map[string]bool{}
	for at := range 4 {
		c := chain{steps: make([]uint8, at)}
		c.check = func() {
			compare(t, 16)
			seen[names(*Callers(16, &own))] = true
		}
		faulting(&c, at)
	}
	if len(seen) != 2 {
		t.Errorf("%d stacks, want one for each line", len(seen))
	}
}

// A full table is as exact, and takes no more memory.
func TestFull(t *testing.T) {
	defer forget()
	forget()
	stacks.count.Store(maxStacks - 1)
	asked := 0
	for n := range 5 {
		for range 2 {
			c := chain{check: func() {
				if compare(t, 16) {
					asked++
				}
			}}
			recursion(&c, 0, n)
		}
	}
	if asked != 8 || stacks.count.Load() != maxStacks {
		t.Errorf("the runtime was asked %d times, and %d stacks are kept; want 8 and %d", asked, stacks.count.Load(), maxStacks)
	}
}

// Many who see a stack first at once keep it once.
func TestLearnedOnce(t *testing.T) {
	forget()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			c := chain{check: func() { compare(t, 16) }}
			for range 100 {
				c.next(0)
			}
		})
	}
	wg.Wait()
	if n := stacks.count.Load(); n != 1 {
		t.Errorf("%d stacks are kept, want 1", n)
	}
}

// Callers takes no memory for a stack that it knows.
func TestAllocations(t *testing.T) {
	var own *Stack
	if n := testing.AllocsPerRun(100, func() { Callers(16, &own) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Return addresses tell a stack only if each of its frames is among them, or inlined into the one before.
func TestTells(t *testing.T) {
	stack := make([]uintptr, 64)
	c := chain{steps: []uint8{0, 2, 50}, check: func() { stack = stack[:runtimeCallers(stack)] }}
	c.next(0)
	var key []uintptr // without inlined callers
	for _, pc := range stack {
		if len(key) == 0 || entryOf(pc) != entryOf(key[len(key)-1]) || pc == key[len(key)-1] {
			key = append(key, pc)
		}
	}
	if !tells(key, stack) {
		t.Fatalf("a whole key doesn't tell its stack:\n%s\nof\n%s", names(key), names(stack))
	}
	for i := range key {
		if rest := append(append([]uintptr(nil), key[:i]...), key[i+1:]...); tells(rest, stack) && (i == 0 || key[i] != key[i-1]) {
			t.Errorf("a key without %s tells the stack", names(key[i:i+1]))
		}
	}
}
