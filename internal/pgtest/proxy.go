package pgtest

import (
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy stands between clients and a server and understands what they say, so that it can lose a connection at a moment
// that matters: after a statement has run and before its answer arrives. See [Fault].
type Proxy struct {
	tb          testing.TB
	addr        string
	upstream    string
	tls         *tls.Config // nil: clients are told that there is no encryption
	dropCancels bool
	serving     sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while down
	closed   bool
	sessions map[*session]bool
	armed    *Fault
	fired    chan struct{} // of the fault armed last
	counts   counts
}

// counts are what the proxy saw since it was made or since ResetCounts.
type counts struct {
	accepted, cancels, roundTrips int
	queries                       []string
}

// ProxyOption changes a proxy that is about to be made.
type ProxyOption func(*Proxy)

// WithTLS makes the proxy encrypt the client's side, with a certificate that no one vouches for (sslmode=require).
func WithTLS() ProxyOption {
	return func(p *Proxy) {
		cert, err := selfSigned()
		if err != nil {
			p.tb.Fatal(err)
		}
		p.tls = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
}

// DropCancels keeps cancel requests from the server; the client sees no difference.
func DropCancels() ProxyOption {
	return func(p *Proxy) { p.dropCancels = true }
}

// NewProxy starts a proxy to the server at upstream, a host:port. It is closed with the test.
func NewProxy(tb testing.TB, upstream string, opts ...ProxyOption) *Proxy {
	tb.Helper()
	// A port that outgoing connections don't get is still free when SetDown(false) wants it back.
	port, err := ground.reservePort()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ground.freePort(port) })
	p := &Proxy{tb: tb, upstream: upstream, sessions: map[*session]bool{}}
	p.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for _, opt := range opts {
		opt(p)
	}
	p.SetDown(false)
	tb.Cleanup(p.close)
	return p
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return p.addr }

// DSN is the URL dsn with the proxy in the server's place, and sslmode=require when the proxy encrypts.
func (p *Proxy) DSN(dsn string) string {
	p.tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		p.tb.Fatal(err)
	}
	u.Host = p.addr
	if p.tls != nil {
		query := u.Query()
		query.Set("sslmode", "require")
		u.RawQuery = query.Encode()
	}
	return u.String()
}

// Arm sets the fault that happens next, on whichever connection is first; it happens once. One armed before that has not
// happened is replaced.
func (p *Proxy) Arm(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.fired = make(chan struct{})
	p.armed, p.fired = &f, f.fired
}

// Fired is closed when the fault armed last has happened; it is nil when none was armed.
func (p *Proxy) Fired() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fired
}

// take gives the armed fault to whoever has a message that it accepts.
func (p *Proxy) take(m Message) *Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.armed
	if f == nil || !f.On(m) {
		return nil
	}
	p.armed = nil
	return f
}

// Release lets connections that Hang go on: they get the answers kept back. One whose batch was not forwarded is reset.
func (p *Proxy) Release() {
	for _, s := range p.all() {
		s.release()
	}
}

// ResetAll ends all connections with a TCP reset.
func (p *Proxy) ResetAll() {
	for _, s := range p.all() {
		s.reset()
	}
}

// SetDown makes the proxy refuse new connections, or accept them again on its port. Those it has go on.
func (p *Proxy) SetDown(down bool) {
	p.tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || down == (p.listener == nil) {
		return
	}
	if down {
		if err := stopListening(p.listener); err != nil {
			p.tb.Errorf("pgtest: proxy: %v", err)
		}
		p.listener = nil
		return
	}
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.tb.Errorf("pgtest: proxy: %v", err)
		return
	}
	p.listener = listener
	p.serving.Go(func() { p.accept(listener) })
}

// Connections counts the sessions that are open now, from their startup message on.
func (p *Proxy) Connections() int {
	n := 0
	for _, s := range p.all() {
		if s.isStarted() {
			n++
		}
	}
	return n
}

// Accepted counts the sessions opened, without cancel requests.
func (p *Proxy) Accepted() int { return p.seen().accepted }

// Cancels counts the cancel requests.
func (p *Proxy) Cancels() int { return p.seen().cancels }

// RoundTrips counts the batches forwarded: a Query each, or messages of the extended protocol up to their Sync.
func (p *Proxy) RoundTrips() int { return p.seen().roundTrips }

// Queries is the SQL of every Query and Parse that came, in that order on each connection.
func (p *Proxy) Queries() []string { return p.seen().queries }

// ResetCounts begins all counts but Connections anew.
func (p *Proxy) ResetCounts() { p.note(func(c *counts) { *c = counts{} }) }

func (p *Proxy) note(change func(*counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.counts)
}

func (p *Proxy) seen() counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.queries = slices.Clone(c.queries)
	return c
}

func (p *Proxy) all() []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	sessions := make([]*session, 0, len(p.sessions))
	for s := range p.sessions {
		sessions = append(sessions, s)
	}
	return sessions
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		s := newSession(p, conn.(*net.TCPConn))
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			conn.Close()
			return
		}
		p.sessions[s] = true
		p.mu.Unlock()
		p.serving.Go(func() {
			s.serve()
			p.mu.Lock()
			delete(p.sessions, s)
			p.mu.Unlock()
		})
	}
}

// cancel passes a cancel request on and returns when the server has taken it.
func (p *Proxy) cancel(request []byte) {
	p.note(func(c *counts) { c.cancels++ })
	if p.dropCancels {
		return
	}
	server, err := dialUpstream(p.upstream)
	if err != nil {
		return
	}
	defer server.Close()
	// A frozen server must not keep the proxy from closing.
	server.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := server.Write(request); err == nil {
		io.Copy(io.Discard, server)
	}
}

func (p *Proxy) close() {
	p.SetDown(true)
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for _, s := range p.all() {
		s.raw.Close()
		s.close()
	}
	p.serving.Wait()
}
