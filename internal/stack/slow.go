//go:build !((amd64 || arm64) && (linux || darwin)) || purego || msan

package stack

// Callers returns the stack of the caller of the function that calls it, depth frames at most, innermost first, as runtime.Callers
// has it. It may be in *buffer, which is made as needed, and must not be changed.
//
//go:noinline
func Callers(depth int, buffer *[]uintptr) []uintptr { return take(0, depth, buffer) }
