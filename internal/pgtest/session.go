package pgtest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// session is one client's connection through a proxy. Two goroutines serve it: one forwards the client's messages and runs
// the faults, the other forwards the server's answers.
type session struct {
	proxy *Proxy
	raw   *net.TCPConn
	// client is raw, or TLS over it. It is written to with mu held; to end such a write, close raw first.
	client net.Conn

	mu      sync.Mutex
	changed *sync.Cond
	started bool     // it is a session and no cancel request
	server  net.Conn // nil until started
	owed    int      // batches that the server has yet to answer
	copying bool     // the server waits for COPY data, which is as much of an answer as it gives
	lost    bool     // the server's side has ended
	keeping bool     // answers go to kept, not to the client
	kept    []byte
	hung    bool // keeping until Release
	unsent  bool // hung over a batch that the server never got
}

func newSession(p *Proxy, raw *net.TCPConn) *session {
	s := &session{proxy: p, raw: raw, client: raw}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// serve returns when both sides are closed.
func (s *session) serve() {
	defer s.close()
	startup, cancel, err := s.handshake()
	if err != nil {
		return
	}
	if cancel {
		s.proxy.cancel(startup)
		return
	}
	server, err := dialUpstream(s.proxy.upstream)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.started, s.server, s.owed = true, server, 1 // a session's start is answered like a batch
	s.mu.Unlock()
	s.proxy.note(func(c *counts) { c.accepted++ })
	if _, err := server.Write(startup); err != nil {
		return
	}
	var answers sync.WaitGroup
	answers.Go(s.answer)
	s.forward()
	s.close()
	answers.Wait()
}

// handshake answers requests for encryption until the client says what it wants.
func (s *session) handshake() (raw []byte, cancel bool, err error) {
	for {
		raw, code, err := readStartup(s.client)
		if err != nil {
			return nil, false, err
		}
		reply := "N"
		switch {
		case code == sslRequest && s.proxy.tls != nil:
			reply = "S"
		case code != sslRequest && code != gssEncRequest:
			return raw, code == cancelRequest, nil
		}
		if _, err := io.WriteString(s.raw, reply); err != nil {
			return nil, false, err
		}
		if reply == "S" {
			s.mu.Lock()
			s.client = tls.Server(s.raw, s.proxy.tls)
			s.mu.Unlock()
		}
	}
}

// forward reads the client's messages until the connection ends. Messages of the extended protocol, to which a server need
// not answer before the Sync or Flush behind them, are kept until that comes, so that a fault can withhold a whole batch.
func (s *session) forward() {
	client := bufio.NewReader(s.client)
	known := newStatements()
	var batch []byte
	var fault *Fault
	for {
		raw, err := readMessage(client)
		if err != nil {
			return
		}
		m := known.message(raw)
		batch = append(batch, raw...)
		if fault == nil {
			fault = s.proxy.take(m)
		}
		if m.Type == 'Q' || m.Type == 'P' {
			s.proxy.note(func(c *counts) { c.queries = append(c.queries, m.Text) })
		}
		if strings.IndexByte("PBDEC", m.Type) >= 0 {
			continue
		}
		if fault != nil && (m.Type != 'H' || fault.Before) {
			goesOn := s.strike(fault, batch, m.Type)
			close(fault.fired)
			fault = nil
			if !goesOn {
				return
			}
		} else if s.send(batch, m.Type) != nil {
			return
		}
		batch = batch[:0]
	}
}

// send forwards messages of which the last has that type.
func (s *session) send(batch []byte, last byte) error {
	s.mu.Lock()
	s.copying = false
	if last == 'Q' || last == 'S' || last == 'F' {
		s.owed++
	}
	server := s.server
	s.mu.Unlock()
	if last == 'Q' || last == 'S' {
		s.proxy.note(func(c *counts) { c.roundTrips++ })
	}
	_, err := server.Write(batch)
	return err
}

// strike lets a fault happen and reports whether the connection goes on.
func (s *session) strike(f *Fault, batch []byte, last byte) bool {
	s.awaitAnswer() // to what came before, which the client gets
	s.mu.Lock()
	s.keeping = true
	s.unsent = f.Before
	s.mu.Unlock()
	if !f.Before {
		// A server that is gone is for Do to cover up or not.
		if s.send(batch, last) == nil && !f.NoWait {
			s.awaitAnswer()
		}
	}
	if f.Hook != nil {
		f.Hook()
	}
	return f.Do(s)
}

// awaitAnswer returns when the server owes nothing, or will give nothing.
func (s *session) awaitAnswer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.owed > 0 && !s.copying && !s.lost {
		s.changed.Wait()
	}
}

// answer reads the server's messages until the connection ends.
func (s *session) answer() {
	server := bufio.NewReader(s.server)
	for {
		raw, err := readMessage(server)
		if err != nil || s.receive(raw) != nil {
			break
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	s.changed.Broadcast()
	if !s.keeping {
		s.client.Close()
	}
}

// receive takes one message of the server's.
func (s *session) receive(raw []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch raw[0] {
	case 'Z': // ReadyForQuery
		s.owed--
	case 'G', 'W': // CopyInResponse, CopyBothResponse
		s.copying = true
	}
	s.changed.Broadcast()
	if s.keeping {
		s.kept = append(s.kept, raw...)
		return nil
	}
	_, err := s.client.Write(raw)
	return err
}

// replace sends raw in place of the answer that was kept.
func (s *session) replace(raw []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeping, s.kept = false, nil
	_, err := s.client.Write(raw)
	return err
}

// release ends a hang.
func (s *session) release() {
	s.mu.Lock()
	hung, unsent, lost, kept := s.hung, s.unsent, s.lost, s.kept
	s.hung = false
	s.mu.Unlock()
	switch {
	case !hung:
	case unsent:
		s.reset()
	case s.replace(kept) != nil || lost:
		s.close()
	}
}

// reset ends the client's side with a TCP reset and the server's quietly.
func (s *session) reset() {
	s.raw.SetLinger(0)
	s.raw.Close()
	s.close()
}

func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.Close()
	if s.server != nil {
		s.server.Close()
	}
}

func (s *session) isStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

func dialUpstream(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, 5*time.Second) }
