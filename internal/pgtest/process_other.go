//go:build !linux

package pgtest

import (
	"errors"
	"net"
	"os"
	"syscall"
)

var errNotLinux = errors.New("pgtest: freezing a server needs Linux")

func ownGroup() *syscall.SysProcAttr   { return nil }
func serverAttr() *syscall.SysProcAttr { return nil }

const memoryDir = ""

func roomInMemory() bool { return false }

func shutDown(server *os.Process) error { return server.Signal(os.Interrupt) }

// killTree kills the postmaster; its backends end when they notice.
func killTree(server *os.Process) error { return server.Kill() }

func freezeTree(*os.Process) error { return errNotLinux }
func thawTree(*os.Process) error   { return nil }

// hasExited does not know here: a server that ends while it starts is reported when the time is up.
func hasExited(*os.Process) bool { return false }

// stopListening closes a listener.
func stopListening(l net.Listener) error { return l.Close() }
