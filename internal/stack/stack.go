package stack

import "runtime"

// take writes the stack of the caller of the function that called Callers into *buffer, which it makes as needed. Between are the functions
// between Callers and this one.
//
//go:noinline
func take(between, depth int, buffer *[]uintptr) []uintptr {
	if len(*buffer) < depth {
		*buffer = make([]uintptr, depth)
	}
	b := (*buffer)[:depth]
	return b[:runtime.Callers(between+4, b)]
}
