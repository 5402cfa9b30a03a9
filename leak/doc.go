// Package leak knows who holds a connection, since when, and from which line of code.
//
// A [Tracker] belongs to a pool, a [Slot] to one physical connection of it. The pool says CheckOut and CheckIn; the
// tracker remembers the stack of the goroutine that took the connection, and reports a checkout that is held for too
// long: in the log, to a callback, in [Tracker.Leaks], and in the pprof profile managedpg.checkouts.
//
// The package never touches a connection, and never stops a checkout: a connection is taken back by the pool, when
// [Holder.Reclaim] asks for it.
package leak
