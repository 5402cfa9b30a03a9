package wire

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// CloseLimit caps what a base driver may spend on a goodbye to a server that doesn't answer: its Terminate, a cancel
// request, waiting for the server's own close. Then the socket is closed under it.
const CloseLimit = time.Second

// Open opens a connection of the network's.
type Open func(ctx context.Context, network, address string) (net.Conn, error)

// Dialer opens sockets with libpq's options.
type Dialer struct {
	// KeepAlive is what libpq's keepalives, keepalives_idle, keepalives_interval and keepalives_count say.
	KeepAlive net.KeepAliveConfig
	// UserTimeout is TCP_USER_TIMEOUT, 0 for the system's default. It is ignored where the system has no such thing.
	UserTimeout time.Duration
}

// Open is an Open.
func (d *Dialer) Open(ctx context.Context, network, address string) (net.Conn, error) {
	nd := net.Dialer{KeepAliveConfig: d.KeepAlive}
	if !d.KeepAlive.Enable {
		nd.KeepAlive = -1
	}
	if d.UserTimeout > 0 && network != "unix" {
		nd.Control = func(_, _ string, raw syscall.RawConn) error { return setUserTimeout(raw, d.UserTimeout) }
	}
	return nd.DialContext(ctx, network, address)
}

// Dialled is where a base driver's dials leave their sockets for the one who asked the base to connect.
type Dialled struct {
	mu   sync.Mutex // guards what follows
	last *Socket
	over error // why no socket is wanted any more
}

// Socket is the last one that was dialled: a base may dial more than once (sslmode=prefer), and goes on with the last. It is nil if
// none was.
func (d *Dialled) Socket() *Socket {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// Dial opens a socket for a connection.
func (d *Dialled) Dial(ctx context.Context, network, address string, open Open) (*Socket, error) {
	c, err := open(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := NewSocket(c)
	if err := d.keep(s); err != nil {
		s.CloseFor(err)
		return nil, err
	}
	return s, nil
}

func (d *Dialled) keep(s *Socket) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = s
	return d.over
}

// Abort closes the socket under a base that is connecting, and those it may still dial.
func (d *Dialled) Abort(reason error) {
	d.mu.Lock()
	d.over = reason
	s := d.last
	d.mu.Unlock()
	s.CloseFor(reason)
}
