package pgtest

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Relay stands before a server, and decides what becomes of new connections. Those that it has go on. Its methods may be called from
// several goroutines.
type Relay struct {
	listener net.Listener
	upstream string
	mode     atomic.Pointer[RelayMode]
	opened   atomic.Int64
	asked    atomic.Int64
	sessions atomic.Int64
	mu       sync.Mutex // guards open
	open     []net.Conn
	lost     atomic.Int64 // connections up to this number are forgotten
}

// RelayMode is what becomes of new connections; the zero one lets them through.
type RelayMode struct {
	SQLState string          // refuse with a FATAL error of this, if not empty
	HangUp   bool            // in the startup
	Delay    time.Duration   // before the server is reached
	Until    <-chan struct{} // nor is it before this is closed, if not nil
}

// NewRelay makes a relay that lets connections through. It must be closed.
func NewRelay(upstream string) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{listener: l, upstream: upstream}
	r.Set(RelayMode{})
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

// Addr is where clients connect.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// Set says what becomes of connections from now on.
func (r *Relay) Set(m RelayMode) { r.mode.Store(&m) }

// Asked is how many connections asked for a session, refused ones included. Cancel requests don't: pgx sends one after each startup
// that fails.
func (r *Relay) Asked() int64 { return r.asked.Load() }

// Sessions is how many of them were let through.
func (r *Relay) Sessions() int64 { return r.sessions.Load() }

// Forget makes all connections that there are swallow what they are sent, as a router does that has forgotten them.
func (r *Relay) Forget() { r.lost.Store(r.opened.Load()) }

// Close ends all connections.
func (r *Relay) Close() {
	_ = stopListening(r.listener)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		_ = c.Close()
	}
}

func (r *Relay) serve(c net.Conn) {
	defer c.Close()
	n := r.opened.Add(1)
	var head [8]byte // of its first message: the length, then what it asks for
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	cancels := binary.BigEndian.Uint32(head[4:]) == cancelRequest
	if !cancels {
		r.asked.Add(1)
	}
	m := r.mode.Load()
	time.Sleep(m.Delay)
	if m.Until != nil {
		<-m.Until
	}
	switch {
	case m.HangUp:
		return
	case m.SQLState != "":
		refuse(c, head, m.SQLState)
		return
	}
	up, err := net.Dial("tcp", r.upstream)
	if err != nil {
		return
	}
	defer up.Close()
	if !cancels {
		r.sessions.Add(1)
	}
	go func() { _, _ = io.Copy(up, io.MultiReader(bytes.NewReader(head[:]), unlessLost{c, r, n})); up.Close() }()
	_, _ = io.Copy(c, up)
}

// unlessLost is a client, of whom nothing is heard any more once its connection is forgotten.
type unlessLost struct {
	net.Conn
	relay *Relay
	n     int64 // the connection's number
}

func (u unlessLost) Read(b []byte) (int, error) {
	for {
		n, err := u.Conn.Read(b)
		if err != nil || u.n > u.relay.lost.Load() {
			return n, err
		}
	}
}

// refuse answers a startup message, whose head has been read, with a FATAL error.
func refuse(c net.Conn, head [8]byte, sqlstate string) {
	if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:]))-int64(len(head))); err != nil {
		return
	}
	fields := "SFATAL\x00VFATAL\x00C" + sqlstate + "\x00Mnot now\x00\x00"
	answer := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(fields)+4))
	_, _ = c.Write(append(answer, fields...))
}
