//go:build (amd64 || arm64) && (linux || darwin) && !purego && !msan

package stack

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
)

// returnAddresses writes the calling goroutine's return addresses to buf, n at most, innermost first. It returns how many there are, or
// -1 if the chain of frame pointers leaves the goroutine's stack, as that of a callback from C does, and a hash of them, which takes
// no time beside the walk from frame to frame.
//
// It is sound because the compiler keeps frame pointers on these systems, by which the runtime itself unwinds goroutines, its
// execution tracer since Go 1.21 and its block and mutex profiles since 1.23; because assembly is not preempted, so that the
// stack isn't moved meanwhile; and because it reads nothing outside of that stack, whatever a frame pointer says.
//
//go:noescape
func returnAddresses(buf *uintptr, n int) (found int, hash uint64)

const (
	// spare is how many frames of the key may be wrappers that runtime.Callers leaves out; with more a stack isn't kept.
	spare = 8
	// usualKey is enough for the leak tracker's default, 16 frames, and maxKey for the deepest walk that it makes of its own, 64.
	usualKey = 16 + spare
	maxKey   = 64 + spare
	// maxStacks bounds the memory of the stacks kept, at most some 2 MB at the usual depth; a program has a few hundred.
	maxStacks  = 4096
	bucketBits = 10
)

// known is what runtime.Callers has said of the stack with these return addresses. It isn't changed once it is in a table.
type known struct {
	hash  uint64
	depth int
	key   []uintptr
	stack *Stack // nil: the key doesn't tell it
	next  *known
}

// table has the stacks that were taken before. To look one up takes no lock.
type table struct {
	buckets [1 << bucketBits]atomic.Pointer[known]
	mu      sync.Mutex // serialises additions
	count   atomic.Int32
}

var stacks table

// Callers returns the stack of the caller of the function that calls it, depth frames at most, innermost first, as runtime.Callers
// has it. It may be *own, which is made as needed, until the next call with that.
//
//go:noinline
func Callers(depth int, own **Stack) *Stack {
	if depth > usualKey-spare {
		var key [maxKey]uintptr
		n, hash := returnAddresses(&key[0], min(depth+spare, maxKey))
		return stacks.get(key[:], n, hash, depth, own)
	}
	var key [usualKey]uintptr // no larger than needed: it is cleared each time
	n, hash := returnAddresses(&key[0], depth+spare)
	return stacks.get(key[:], n, hash, depth, own)
}

// get is Callers with its n return addresses at hand.
//
//go:noinline
func (t *table) get(key []uintptr, n int, hash uint64, depth int, own **Stack) *Stack {
	const itself = 1
	if n < 0 {
		return take(itself, depth, own)
	}
	key = key[:n]
	b := &t.buckets[hash*0x9e3779b97f4a7c15>>(64-bucketBits)] // Fibonacci hashing
	for k := b.Load(); k != nil; k = k.next {
		if k.hash == hash && k.depth == depth && same(k.key, key) {
			if k.stack == nil {
				return take(itself, depth, own)
			}
			return k.stack
		}
	}
	if t.count.Load() >= maxStacks {
		return take(itself, depth, own)
	}
	return t.learn(b, slices.Clone(key), hash, depth)
}

// same is slices.Equal by the runtime's comparison of memory, which takes a third of the time.
func same(a, b []uintptr) bool { return memory(a) == memory(b) }

func memory(pcs []uintptr) string {
	return unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(pcs))), len(pcs)*int(unsafe.Sizeof(uintptr(0))))
}

// learn takes the stack of the key, and keeps it if the key tells it.
//
//go:noinline
func (t *table) learn(b *atomic.Pointer[known], key []uintptr, hash uint64, depth int) *Stack {
	pcs := make([]uintptr, depth+1)
	pcs = pcs[:runtime.Callers(4, pcs)] // from the caller of Callers on
	stack := Stack(pcs[min(1, len(pcs)):])
	k := &known{hash: hash, depth: depth, key: key}
	from := key
	if len(from) > 0 && len(pcs) > 0 && from[0] != pcs[0] {
		from = from[1:] // Callers itself, if the way into the assembly has a frame
	}
	if tells(from, pcs) {
		k.stack = &stack
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for other := b.Load(); other != nil; other = other.next {
		if other.depth == depth && same(other.key, key) {
			return &stack
		}
	}
	if t.count.Load() < maxStacks {
		t.count.Add(1)
		k.next = b.Load()
		b.Store(k)
	}
	return &stack
}

// tells says whether the return addresses decide each frame of the stack: it is one of them, or is of the function that the
// one before was inlined into. It isn't so where a frame was left out of the chain: the caller of a function without a frame of its
// own that panicked in a signal, or that was written in assembly.
func tells(key, stack []uintptr) bool {
	var function uintptr // that the last return address is in
	for _, pc := range stack {
		for len(key) > 0 && key[0] != pc && entryOf(pc) != function && isWrapper(key[0]) {
			key, function = key[1:], 0
		}
		switch {
		case len(key) > 0 && key[0] == pc:
			key, function = key[1:], entryOf(pc)
		case function == 0 || entryOf(pc) != function:
			return false
		}
	}
	return true
}

// entryOf is 0 for a pc that is none of Go's.
func entryOf(pc uintptr) uintptr {
	if f := runtime.FuncForPC(pc - 1); f != nil {
		return f.Entry()
	}
	return 0
}

// isWrapper says whether pc is in a function that runtime.Callers leaves out: the compiler's, assembly around a call, or by its name.
func isWrapper(pc uintptr) bool {
	f := runtime.FuncForPC(pc - 1)
	if f == nil {
		return false
	}
	switch f.Name() {
	case "runtime.deferreturn", "reflect.callReflect", "reflect.callMethod":
		return true
	}
	file, _ := f.FileLine(pc - 1)
	last := f.Name()[strings.LastIndexByte(f.Name(), '.')+1:]
	return file == "<autogenerated>" || strings.HasSuffix(file, ".s") ||
		strings.HasPrefix(last, "deferwrap") || strings.HasPrefix(last, "gowrap")
}
