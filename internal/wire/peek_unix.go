//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris

package wire

import (
	"errors"
	"syscall"
)

func (s *Socket) peekAt(fd uintptr) {
	var buf [1]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK|msgDontwait)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			s.look.found = PeekQuiet
		case err != nil || n == 0:
			s.look.found = PeekClosed
		default:
			s.look.found = PeekUnread
		}
		return
	}
}

// The sockets of package net are non-blocking already; the flag only says so once more.
const msgDontwait = syscall.MSG_DONTWAIT
