// Package stack takes a goroutine's stack as [runtime.Callers] does, for a fraction of its cost where the stack was taken before.
package stack

import "runtime"

// take writes the stack of the caller of the function that called Callers into *buffer, which it makes as needed.
//
//go:noinline
func take(depth int, buffer *[]uintptr) []uintptr {
	if len(*buffer) < depth {
		*buffer = make([]uintptr, depth)
	}
	b := (*buffer)[:depth]
	return b[:runtime.Callers(4, b)]
}
