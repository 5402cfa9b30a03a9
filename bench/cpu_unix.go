//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpu is the CPU time of the process, the garbage collector's included. It falls back to the wall's.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return wall()
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
