package conn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// closeLimit caps what a base driver may spend on a goodbye to a server that doesn't answer: its Terminate, a cancel
// request, waiting for the server's own close. Then the socket is closed under it.
const closeLimit = time.Second

// Dialer opens sockets with libpq's options.
type Dialer struct {
	// KeepAlive is what libpq's keepalives, keepalives_idle, keepalives_interval and keepalives_count say.
	KeepAlive net.KeepAliveConfig
	// UserTimeout is TCP_USER_TIMEOUT, 0 for the system's default. It is ignored where the system has no such thing.
	UserTimeout time.Duration
	// CancelTimeout is how long the server's answer to a cancel request is waited for, 0 for sending none.
	CancelTimeout time.Duration
}

func (d *Dialer) open(ctx context.Context, network, address string) (net.Conn, error) {
	nd := net.Dialer{KeepAliveConfig: d.KeepAlive}
	if !d.KeepAlive.Enable {
		nd.KeepAlive = -1
	}
	if d.UserTimeout > 0 && network != "unix" {
		nd.Control = func(_, _ string, raw syscall.RawConn) error { return setUserTimeout(raw, d.UserTimeout) }
	}
	return nd.DialContext(ctx, network, address)
}

// dialing is where a base driver's dial leaves its socket for the one who asked the base to connect.
type dialing struct {
	pinned pin

	mu   sync.Mutex
	last *socket
	over error // why no socket is wanted any more

	// What follows is only touched by the base's Connect and by who called it.
	inHook   bool // the user's code is running
	refused  bool // by ValidateConnect
	prepared bool // AfterConnect of the user's configuration has run
	plain    bool // the user's options have no AfterConnect
}

type dialingKey struct{}

// keep makes s the socket of the connection being opened. A base may dial more than once (sslmode=prefer): the last one
// is the one it goes on with.
func (d *dialing) keep(s *socket) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = s
	return d.over
}

// abort closes the socket under a base that is connecting, and those it may still dial.
func (d *dialing) abort(reason error) {
	d.mu.Lock()
	d.over = reason
	s := d.last
	d.mu.Unlock()
	if s != nil {
		s.closeFor(reason)
	}
}

// dial opens a socket for a base driver. What for can be told by the context: a connection's carries a dialing, that of
// a cancel request doesn't.
func dial(ctx context.Context, network, address string, open func(ctx context.Context, network, address string) (net.Conn, error)) (net.Conn, error) {
	d, ok := ctx.Value(dialingKey{}).(*dialing)
	if !ok {
		return dialBriefly(ctx, network, address, open)
	}
	serverBegins(ctx)
	c, err := open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := newSocket(c)
	if err := d.keep(s); err != nil {
		s.closeFor(err)
		return nil, err
	}
	return s, nil
}

// dialBriefly opens the socket of a cancel request.
func dialBriefly(ctx context.Context, network, address string, open func(ctx context.Context, network, address string) (net.Conn, error)) (net.Conn, error) {
	ended, _ := ctx.Value(endedKey{}).(*atomic.Bool)
	ctx, cancel := context.WithTimeout(ctx, closeLimit)
	defer cancel()
	c, err := open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &brief{c, time.AfterFunc(closeLimit, func() { _ = c.Close() }), ended}, nil
}

// brief is the socket of a cancel request: closed after closeLimit, whatever its user does.
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

func (b *brief) Close() error {
	b.timer.Stop()
	return b.Conn.Close()
}
