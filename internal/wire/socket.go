package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/single"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// Socket is the network connection under a base driver's connection. It counts what the base writes, remembers the
// first error, and can be closed from outside with a reason that whoever still uses it is given.
//
// The nil Socket is that of a connection that we didn't dial: nothing is known of it, and nothing can be done to it.
type Socket struct {
	net.Conn
	raw syscall.RawConn // nil where the system's socket can't be had: then Peek always answers PeekUnknown

	traffic traffic
	heard   single.Counter // when the last read brought something, by clock.Now()
	refused atomic.Pointer[refusal]
	idled   atomic.Bool // the server's last word was that the session was idle for too long

	cancel *canceller // nil where the base has a call for cancel requests; set when opened

	throughCalls bool // traffic tells the reads that calls wait for; set when opened. See callReader

	over atomic.Bool // Broken has something to say; without it Broken takes no lock

	mu      sync.Mutex // guards what follows up to onClose
	closed  bool
	err     error // the first error a read or write met
	reason  error // why CloseFor closed it
	onClose func()

	look struct { // for Peek
		at    func(fd uintptr) // peekAt, bound once so that a Peek allocates nothing
		found Peek             // what the last one found; only touched inside Peek
	}
}

// traffic is what goes on at a socket. It is one word, as each read and each write has to keep it up to date.
type traffic struct{ word atomic.Uint64 }

const (
	underWay = 1 << 0  // a read or write under way: a byte of them
	forCall  = 1 << 8  // a read under way that a call of pgx waits for: a byte of them
	written  = 1 << 16 // a write that carried anything but a goodbye
)

func (t *traffic) begin(what uint64) { t.word.Add(what) }
func (t *traffic) end(what uint64)   { t.word.Add(-what) }

// Writes is the number of writes so far that carried anything but a goodbye.
func (s *Socket) Writes() int64 {
	if s == nil {
		return 0
	}
	return int64(s.traffic.word.Load() / written)
}

// Waiting says that a read or a write is under way.
func (s *Socket) Waiting() bool { return s != nil && s.traffic.word.Load()&(forCall-1) > 0 }

// Heard is when the last read brought something, by clock.Now().
func (s *Socket) Heard() time.Duration {
	if s == nil {
		return 0
	}
	return time.Duration(s.heard.Load())
}

// Idled says that the server's last word was that the session was idle for too long. Under TLS it isn't seen.
func (s *Socket) Idled() bool { return s != nil && s.idled.Load() }

// NewSocket makes a socket of a connection of the network's.
func NewSocket(c net.Conn) *Socket {
	s := &Socket{Conn: c}
	s.raw = rawConn(c)
	s.look.at = s.peekAt
	return s
}

// rawConn finds the system's socket under c, through wrappers that have NetConn as *tls.Conn has.
func rawConn(c net.Conn) syscall.RawConn {
	for {
		if sc, ok := c.(syscall.Conn); ok {
			raw, err := sc.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		}
		under, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = under.NetConn()
	}
}

func (s *Socket) Read(b []byte) (int, error) { return s.read(b, underWay) }

func (s *Socket) read(b []byte, what uint64) (int, error) {
	if r := s.refused.Load(); r != nil && r.reads {
		return 0, s.failed(net.ErrClosed)
	}
	s.traffic.begin(what)
	n, err := s.Conn.Read(b)
	s.traffic.end(what)
	if n > 0 {
		s.heard.Store(int64(clock.Now())) // a socket has one reader at a time
		if s.cancel != nil && s.cancel.startup != nil {
			s.cancel.readAlong(b[:n])
		}
		if b[0] == 'E' && isIdleTimeout(b[:n]) {
			s.idled.Store(true)
		}
	}
	if err != nil {
		err = s.failed(err)
	}
	return n, err
}

// isIdleTimeout says that what was read is one ErrorResponse and nothing else, by which PostgreSQL ends a session that was idle
// for too long (the protocol's "Error and Notice Message Fields").
func isIdleTimeout(b []byte) bool {
	const header = 1 + 4
	if len(b) <= header || int(binary.BigEndian.Uint32(b[1:])) != len(b)-1 {
		return false
	}
	var fatal, idle bool
	for field := range bytes.SplitSeq(b[header:], []byte{0}) {
		switch string(field) {
		case "VFATAL":
			fatal = true
		case "C" + sqlstate.IdleSessionTimeout, "C" + sqlstate.IdleInTransactionTimeout:
			idle = true
		}
	}
	return fatal && idle
}

func (s *Socket) Write(b []byte) (int, error) {
	if r := s.refused.Load(); r != nil {
		s.because(r.reason)
		return 0, s.failed(net.ErrClosed)
	}
	s.traffic.begin(underWay)
	n, err := s.Conn.Write(b)
	if n > 0 && !goodbye(b) {
		s.traffic.word.Add(written - underWay)
	} else {
		s.traffic.end(underWay)
	}
	if err != nil {
		err = s.failed(err)
	}
	return n, err
}

// goodbye tells a Terminate message, which a base may send from another goroutine after it has given up on a call, from
// everything that could run a statement. It is five bytes long ('X' and its length), and no message that runs a
// statement is as short. Under TLS it is one record: of TLS 1.3 its length gives it away; of TLS 1.2 it depends on the
// cipher, and it counts as a write, which errs on the side of "outcome unknown".
func goodbye(b []byte) bool {
	const (
		terminate       = 5
		tls13Overhead   = 5 + 1 + 16 // record header, content type, AEAD tag: RFC 8446, section 5.2
		applicationData = 23
	)
	switch len(b) {
	case terminate:
		return b[0] == 'X'
	case terminate + tls13Overhead:
		return b[0] == applicationData && b[1] == 3 && b[2] == 3
	default:
		return false
	}
}

// failed notes the first error, and gives the reason in its place if we closed the socket ourselves.
func (s *Socket) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reason != nil:
		err = s.reason
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err // how pgx stops reading; whether that ends the connection it says itself
	}
	if s.err == nil {
		s.err = err
	}
	s.over.Store(true)
	return err
}

// Broken is the first error that reading or writing met, net.ErrClosed after Close, or nil.
func (s *Socket) Broken() error {
	if s == nil || !s.over.Load() { // nothing more, so that it is inlined
		return nil
	}
	return s.firstError()
}

// IsBroken says that Broken is an error.
func (s *Socket) IsBroken() bool { return s != nil && s.over.Load() }

func (s *Socket) firstError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.closed {
		return net.ErrClosed
	}
	return s.err
}

// CloseFor closes the socket from outside; whoever reads or writes it gets the reason.
func (s *Socket) CloseFor(reason error) {
	if s == nil {
		return
	}
	s.because(reason)
	_ = s.Close()
}

func (s *Socket) because(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil && !s.closed {
		s.reason = reason
		s.err = reason
		s.over.Store(true)
	}
}

// Refuse lets nobody read or write any more: they get the reason. The socket stays open, for HangUp to close it.
func (s *Socket) Refuse(reason error) {
	if s == nil {
		return
	}
	s.because(reason)
	s.refused.Store(&refusal{reason, true})
}

// RefuseWrites lets nobody write any more: they get the reason. What was sent before may still be answered. It is false if that
// was so already, or the socket isn't ours.
func (s *Socket) RefuseWrites(reason error) bool {
	return s != nil && s.refused.CompareAndSwap(nil, &refusal{reason, false})
}

// refusal is what was told to Refuse or RefuseWrites.
type refusal struct {
	reason error
	reads  bool
}

// HangUp closes the socket, where the system can so that the server has closed its side first. It waits for that as long
// as the context lasts.
func (s *Socket) HangUp(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, s.Conn)
	}
	_ = s.Close()
}

// Close closes the socket, and then calls what WhenClosed left.
func (s *Socket) Close() error {
	err := s.Conn.Close()
	s.mu.Lock()
	f := s.onClose
	s.onClose = nil
	s.closed = true
	s.over.Store(true)
	s.mu.Unlock()
	if f != nil {
		f()
	}
	return err
}

// WhenClosed calls f once the socket is closed, at once if it is already.
func (s *Socket) WhenClosed(f func()) {
	s.mu.Lock()
	if !s.closed {
		s.onClose = f
		f = nil
	}
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// Limit closes the socket for the reason if done isn't called within d.
func (s *Socket) Limit(d time.Duration, reason error) (done func()) {
	if s == nil {
		return func() {}
	}
	limit := time.AfterFunc(d, func() { s.CloseFor(reason) })
	return func() { limit.Stop() }
}

// CloseWithin closes the socket after d, if nobody has closed it until then. Then is called once it is closed.
func (s *Socket) CloseWithin(d time.Duration, then func()) {
	limit := time.AfterFunc(d, func() { _ = s.Close() })
	s.WhenClosed(func() {
		limit.Stop()
		then()
	})
}

// NetConn lets rawConn and others see through.
func (s *Socket) NetConn() net.Conn { return s.Conn }
