package stack

import "runtime"

// Stack is a goroutine's stack, innermost frame first, as runtime.Callers has it. Who has it by [Callers] must not change it.
type Stack []uintptr

// PCs are the stack's; nil has none.
func (s *Stack) PCs() []uintptr {
	if s == nil {
		return nil
	}
	return *s
}

// take writes the stack of the caller of the function that called Callers into *own, which it makes as needed. Between are the functions
// between Callers and this one.
//
//go:noinline
func take(between, depth int, own **Stack) *Stack {
	if *own == nil || cap(**own) < depth {
		s := make(Stack, depth)
		*own = &s
	}
	s := (**own)[:depth]
	**own = s[:runtime.Callers(between+4, s)]
	return *own
}
