//go:build !linux

package wire

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: libpq too ignores tcp_user_timeout where the system has no TCP_USER_TIMEOUT.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
