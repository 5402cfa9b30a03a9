package conn

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

	"github.com/managedpg/managedpg/internal/sqlstate"
)

// socket is the network connection under a base driver's connection. It counts what the base writes, remembers the
// first error, and can be closed from outside with a reason that whoever still uses it is given.
type socket struct {
	net.Conn
	raw syscall.RawConn // nil where the system's socket can't be had: then peek always answers unknown

	traffic traffic
	heard   atomic.Int64 // when the last read brought something, by now()
	refused atomic.Bool  // refuse was called
	idled   atomic.Bool  // the server's last word was that the session was idle for too long

	own *ownCancel // nil where the base has a call for cancel requests; set when opened

	throughCalls bool // traffic tells the reads that calls wait for; set when opened. See callReader

	over atomic.Bool // broken has something to say; without it broken takes no lock

	mu      sync.Mutex // guards what follows up to onClose
	closed  bool
	err     error // the first error a read or write met
	reason  error // why closeFor closed it
	onClose func()

	peekFd  func(fd uintptr) // s.peekAt, bound once so that a peek allocates nothing
	peekNow peekResult       // what the last peekAt found; only touched inside peek
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

// waiting is the number of reads and writes under way.
func (t *traffic) waiting() uint64 { return t.word.Load() & (forCall - 1) }

// ofCalls is the number of reads under way that calls of pgx wait for.
func (t *traffic) ofCalls() uint64 { return t.word.Load() & (written - forCall) }

// writes is the number of writes so far that carried anything but a goodbye.
func (t *traffic) writes() int64 { return int64(t.word.Load() / written) }

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
	s.raw = rawConn(c)
	s.peekFd = s.peekAt
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

func (s *socket) Read(b []byte) (int, error) { return s.read(b, underWay) }

func (s *socket) read(b []byte, what uint64) (int, error) {
	if s.refused.Load() {
		return 0, s.failed(net.ErrClosed)
	}
	s.traffic.begin(what)
	n, err := s.Conn.Read(b)
	s.traffic.end(what)
	if n > 0 {
		s.heard.Store(int64(now()))
		if s.own != nil && s.own.startup != nil {
			s.own.readAlong(b[:n])
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
// for too long (the protocol's "Error and Notice Message Fields"). Under TLS it isn't seen.
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

func (s *socket) Write(b []byte) (int, error) {
	if s.refused.Load() {
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
func (s *socket) failed(err error) error {
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

// broken is the first error that reading or writing met, net.ErrClosed after Close, or nil.
func (s *socket) broken() error {
	if !s.over.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil && s.closed {
		return net.ErrClosed
	}
	return s.err
}

// closeFor closes the socket from outside; whoever reads or writes it gets the reason.
func (s *socket) closeFor(reason error) {
	s.because(reason)
	_ = s.Close()
}

func (s *socket) because(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil && !s.closed {
		s.reason = reason
		s.err = reason
		s.over.Store(true)
	}
}

// refuse lets nobody read or write any more: they get the reason. The socket stays open, for hangUp to close it.
func (s *socket) refuse(reason error) {
	s.because(reason)
	s.refused.Store(true)
}

// hangUp closes the socket, where the system can so that the server has closed its side first. It waits for that as long
// as the context lasts.
func (s *socket) hangUp(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, s.Conn)
	}
	_ = s.Close()
}

// Close closes the socket, and then calls what whenClosed left.
func (s *socket) Close() error {
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

// whenClosed calls f once the socket is closed, at once if it is already.
func (s *socket) whenClosed(f func()) {
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

// NetConn lets rawConn and others see through.
func (s *socket) NetConn() net.Conn { return s.Conn }

// peekResult is what a look at a socket's receive buffer tells without reading from it.
type peekResult int

const (
	peekUnknown peekResult = iota // the system or the dialer has no way to look
	peekQuiet                     // open, nothing to read: as an idle connection should be
	peekUnread                    // something came that nobody read: a notice, a notification, or the server's last words
	peekClosed                    // the server closed it, or it was reset
)

// peek looks whether the peer has closed the connection. It never blocks, and is not to be called concurrently.
func (s *socket) peek() peekResult {
	if s.broken() != nil {
		return peekClosed
	}
	s.peekNow = peekUnknown
	if s.raw == nil {
		return peekUnknown
	}
	// Control, not Read: a peek must not wait for a reader's turn.
	if err := s.raw.Control(s.peekFd); err != nil {
		return peekClosed
	}
	return s.peekNow
}

// Started is the base of the package's monotonic clock: reading time since it costs half of time.Now.
var Started = time.Now()

// now is the monotonic time since the program started.
func now() time.Duration { return time.Since(Started) }
