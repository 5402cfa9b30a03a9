//go:build !((amd64 || arm64) && (linux || darwin)) || purego || msan

package stack

// Callers returns the stack of the caller of the function that calls it, depth frames at most, innermost first, as runtime.Callers
// has it. It may be *own, which is made as needed, until the next call with that.
//
//go:noinline
func Callers(depth int, own **Stack) *Stack { return take(0, depth, own) }
