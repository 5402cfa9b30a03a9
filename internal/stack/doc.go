// Package stack takes a goroutine's stack as [runtime.Callers] does, for a fraction of its cost where the stack was taken before.
package stack
