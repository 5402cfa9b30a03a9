package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// canceller is what a cancel request needs where the base driver has no call for one.
type canceller struct {
	startup *startup   // reads along until it knows; only touched by who reads
	key     backendKey // nil if it isn't known; set while the connection is opened
	sealed  bool       // it can't be, as the connection is encrypted
	role    Role       // what the server said in the startup
	redial  func(context.Context) (net.Conn, error)
}

// backendKey is what the server gave the session for cancel requests: BackendKeyData's content.
type backendKey []byte

// ReadStartup makes the socket read along while the session is opened, for a base driver that shows nothing of the startup, so that Cancel
// and Role have what they need. Redial dials the server again. It is to be called before anything is read.
func (s *Socket) ReadStartup(redial func(context.Context) (net.Conn, error)) {
	s.cancel = &canceller{startup: new(startup), redial: redial}
}

// Role is what the server said of itself in the startup; false if the socket didn't read it, or couldn't.
func (s *Socket) Role() (Role, bool) {
	if s == nil || s.cancel == nil || s.cancel.sealed {
		return Role{}, false
	}
	role := s.cancel.role
	if len(s.cancel.key) >= 4 {
		role.PID = binary.BigEndian.Uint32(s.cancel.key)
	}
	return role, true
}

func (c *canceller) readAlong(b []byte) {
	if key, over := c.startup.read(b); over {
		c.key, c.sealed, c.role, c.startup = key, c.startup.sealed, c.startup.role, nil
	}
}

// CanCancel says that Cancel has what it needs.
func (s *Socket) CanCancel() bool { return s != nil && s.cancel != nil && s.cancel.key != nil }

// cancelRequestCode stands in a CancelRequest in the place of a protocol version.
const cancelRequestCode = 80877102

// Cancel sends a cancel request for what the session is at, and reads the answer to its end: then the server has sent the signal.
func (s *Socket) Cancel(ctx context.Context) error {
	c, err := s.cancel.redial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	key := s.cancel.key
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(key)))
	b = binary.BigEndian.AppendUint32(b, cancelRequestCode)
	if _, err := c.Write(append(b, key...)); err != nil {
		return err
	}
	return readToEnd(c)
}

// readToEnd waits for the server to close a cancel request's connection.
func readToEnd(c net.Conn) error {
	var b [64]byte
	for {
		if _, err := c.Read(b[:]); endOfStream(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// endOfStream says that the server has closed the connection, in order or with a reset.
func endOfStream(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// DialCancel opens the socket of a cancel request, which is closed after CloseLimit whatever its user does.
func DialCancel(ctx context.Context, network, address string, open Open) (net.Conn, error) {
	ended, _ := ctx.Value(endedKey{}).(*atomic.Bool)
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, CloseLimit)
	defer cancel()
	c, err := open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &brief{c, time.AfterFunc(CloseLimit-time.Since(began), func() { _ = c.Close() }), ended}, nil
}

type endedKey struct{}

// NoteEnd is a context for a base driver's cancel request, whose socket then notes in ended that it was read to its end.
func NoteEnd(ctx context.Context, ended *atomic.Bool) context.Context {
	return context.WithValue(ctx, endedKey{}, ended)
}

// brief is the socket of a cancel request.
type brief struct {
	net.Conn
	timer *time.Timer
	ended *atomic.Bool // set once it was read to its end; nil where nobody wants to know
}

func (b *brief) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.ended != nil && endOfStream(err) {
		b.ended.Store(true)
	}
	return n, err
}

// Close reads what is left first, where it matters: under TLS pgx stops at the server's goodbye, of which the socket knows nothing.
func (b *brief) Close() error {
	if b.ended != nil && !b.ended.Load() && readToEnd(b.Conn) == nil {
		b.ended.Store(true)
	}
	b.timer.Stop()
	return b.Conn.Close()
}
