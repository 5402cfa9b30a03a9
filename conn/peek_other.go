//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris)

package conn

// peekAt can't tell here: a pre-ping is a real ping then.
func (s *socket) peekAt(uintptr) { s.peekNow = peekUnknown }
