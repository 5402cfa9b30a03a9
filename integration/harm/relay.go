package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// relay stands before a server, and decides what becomes of new connections. Those that it has go on.
type relay struct {
	listener net.Listener
	upstream string
	mode     atomic.Value // a mode
	sessions atomic.Int64 // that were let through
	mu       sync.Mutex
	open     []net.Conn
}

type mode struct {
	sqlstate string        // refuse with this; "" lets through
	hangUp   bool          // in the startup
	delay    time.Duration // before the server is reached
}

func newRelay(upstream string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, upstream: upstream}
	r.mode.Store(mode{})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.open = append(r.open, c)
			r.mu.Unlock()
			go r.serve(c)
		}
	}()
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) close() {
	_ = r.listener.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		_ = c.Close()
	}
}

func (r *relay) serve(c net.Conn) {
	defer c.Close()
	m := r.mode.Load().(mode)
	time.Sleep(m.delay)
	switch {
	case m.hangUp:
		return
	case m.sqlstate != "":
		refuse(c, m.sqlstate)
		return
	}
	up, err := net.Dial("tcp", r.upstream)
	if err != nil {
		return
	}
	defer up.Close()
	r.sessions.Add(1)
	go func() { _, _ = io.Copy(up, c); up.Close() }()
	_, _ = io.Copy(c, up)
}

// refuse answers a startup message with a FATAL error.
func refuse(c net.Conn, sqlstate string) {
	var length [4]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(length[:]))-4); err != nil {
		return
	}
	fields := "SFATAL\x00VFATAL\x00C" + sqlstate + "\x00Mnot now\x00\x00"
	answer := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(fields)+4))
	_, _ = c.Write(append(answer, fields...))
}
