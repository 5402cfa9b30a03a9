package pgtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

// ownGroup keeps a process out of reach of the signals that a terminal, or whoever kills this process's group, sends.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func serverAttr() *syscall.SysProcAttr {
	attr := ownGroup()
	if uid, gid, other := account(); other {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

// memoryDir is a folder in memory, which containers often have too small for a few servers and their WAL.
const memoryDir = "/dev/shm"

func roomInMemory() bool {
	var fs syscall.Statfs_t
	return syscall.Statfs(memoryDir, &fs) == nil && uint64(fs.Bavail)*uint64(fs.Bsize) >= 4<<30
}

// shutDown asks for PostgreSQL's fast shutdown: sessions are ended, the rest is written out.
func shutDown(server *os.Process) error { return server.Signal(syscall.SIGINT) }

// killTree kills a postmaster and its backends at once and returns when they are gone. The postmaster is stopped first,
// so that no backend is born meanwhile.
func killTree(server *os.Process) error {
	pid := server.Pid
	syscall.Kill(pid, syscall.SIGSTOP)
	err := waitState(pid, stopped, syscall.SIGSTOP)
	pids := append([]int{pid}, children(pid)...)
	for _, p := range pids {
		syscall.Kill(p, syscall.SIGKILL)
	}
	if err != nil {
		return err
	}
	for _, p := range pids {
		if err := waitState(p, ended, syscall.SIGKILL); err != nil {
			return err
		}
	}
	return nil
}

// freezeTree stops a postmaster and all its backends, as if the machine hung.
func freezeTree(server *os.Process) error {
	pid := server.Pid
	for _, p := range append([]int{pid}, children(pid)...) {
		syscall.Kill(p, syscall.SIGSTOP)
	}
	if err := waitState(pid, stopped, syscall.SIGSTOP); err != nil {
		return err
	}
	// The postmaster has stopped by now: whatever it forked before is in this list.
	for _, p := range children(pid) {
		syscall.Kill(p, syscall.SIGSTOP)
		if err := waitState(p, stopped, syscall.SIGSTOP); err != nil {
			return err
		}
	}
	return nil
}

func thawTree(server *os.Process) error {
	for _, p := range append(children(server.Pid), server.Pid) {
		syscall.Kill(p, syscall.SIGCONT)
	}
	return nil
}

// hasExited is whether a child has ended, though nobody waited for it yet.
func hasExited(server *os.Process) bool { return ended(state(server.Pid)) }

func ended(state byte) bool   { return state == 0 || state == 'Z' || state == 'X' }
func stopped(state byte) bool { return state == 'T' || state == 't' || ended(state) }

// waitState returns when a signal that was sent has taken effect.
func waitState(pid int, reached func(byte) bool, sig syscall.Signal) error {
	for end := time.Now().Add(10 * time.Second); !reached(state(pid)); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(end) {
			return fmt.Errorf("pgtest: process %d did not obey signal %v", pid, sig)
		}
	}
	return nil
}

// state is a process's state letter as in proc(5), 0 when there is none.
func state(pid int) byte {
	state, _ := stat(strconv.Itoa(pid))
	return state
}

func children(pid int) []int {
	// To look at every process takes so long that a fault would be no moment any more. But the kernel may not have this
	// list, and may leave someone out when someone else ends meanwhile.
	list := fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)
	once, err := os.ReadFile(list)
	twice, _ := os.ReadFile(list)
	if err == nil && bytes.Equal(once, twice) {
		var pids []int
		for _, field := range bytes.Fields(once) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				pids = append(pids, child)
			}
		}
		return pids
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent := stat(e.Name()); parent == pid {
			pids = append(pids, child)
		}
	}
	return pids
}

// stat reads a process's state and parent. The program's name, in parentheses, may itself contain anything.
func stat(pid string) (state byte, parent int) {
	line, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, 0
	}
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) < 2 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent
}

// stopListening closes a listener and gives its port up, at once: a process that was forked before has the socket too until it has
// executed its program, and would go on listening.
func stopListening(l net.Listener) error {
	if raw, err := l.(*net.TCPListener).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	}
	return l.Close()
}
