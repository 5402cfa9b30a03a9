package wire

import (
	"syscall"
	"time"
)

// tcpUserTimeout is TCP_USER_TIMEOUT of tcp(7), in milliseconds.
const tcpUserTimeout = 18

func setUserTimeout(raw syscall.RawConn, d time.Duration) error {
	var err error
	ctrlErr := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
	})
	if ctrlErr != nil {
		return ctrlErr
	}
	return err
}
