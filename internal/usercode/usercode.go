package usercode

import (
	"fmt"
	"runtime/debug"
)

// Error is what a hook of the user's returned. It is no evidence about a server.
type Error struct {
	Err error
	// Next says that the hook has only turned this server down: another one may do.
	Next bool
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Panic is a panic in the user's code.
type Panic struct {
	Value any
	Stack []byte // where it happened
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v", p.Value) }

// Call calls f, on a goroutine where nobody else would recover. A panic is returned as an Error with a Panic inside.
func Call(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Error{Err: &Panic{v, debug.Stack()}}
		}
	}()
	return f()
}
