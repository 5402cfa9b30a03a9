package base

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/internal/wire"
)

// bases makes an endpoint through each base driver.
var bases = map[string]func(t *testing.T, dsn string) *Endpoint{
	"pgx": func(t *testing.T, dsn string) *Endpoint { return endpoint(t, dsn, "pgx") },
	"pq":  func(t *testing.T, dsn string) *Endpoint { return endpoint(t, dsn, "pq") },
}

func endpoint(t *testing.T, dsn, base string) *Endpoint {
	t.Helper()
	e, err := Pgx("db", dsn, Options{}, nil)
	if base == "pq" {
		e, err = Pq("db", dsn, Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A server that takes connections and then says nothing more than it is told to.
type silent struct {
	addr   string
	hears  chan struct{} // one for each socket, when its first bytes have come
	closed chan struct{} // one for each socket, when the client has closed it
}

func newSilent(t *testing.T, answer string) *silent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &silent{addr: l.Addr().String(), hears: make(chan struct{}, 100), closed: make(chan struct{}, 100)}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.ReadAtLeast(c, make([]byte, 1024), 8)
				s.hears <- struct{}{}
				_, _ = io.WriteString(c, answer)
				_, _ = io.Copy(io.Discard, c)
				s.closed <- struct{}{}
			}()
		}
	}()
	return s
}

// Connecting obeys its context whatever the server does, and leaves no socket behind.
func TestConnectObeysContext(t *testing.T) {
	servers := map[string]struct{ sslmode, answer string }{
		"silent":                  {"disable", ""},
		"silent about TLS":        {"require", ""},
		"silent in its handshake": {"require", "S"},
		"in the middle of a word": {"disable", "R\x00"},
		"prefer":                  {"prefer", ""},
	}
	for base, open := range bases {
		for name, server := range servers {
			t.Run(base+"/"+name, func(t *testing.T) {
				s := newSilent(t, server.answer)
				e := open(t, "postgres://u@"+s.addr+"/d?sslmode="+server.sslmode)
				ctx, cancel := context.WithCancel(t.Context())
				failed := make(chan error)
				go func() {
					_, _, err := e.open(ctx)
					failed <- err
				}()
				within(t, "the server to be spoken to", s.hears)
				cancel()
				if err := within(t, "connect to end with its context", failed); !errors.Is(err, context.Canceled) {
					t.Errorf("connect: %v, want context.Canceled", err)
				}
				within(t, "the socket to be closed", s.closed)
			})
		}
		t.Run(base+"/deadline", func(t *testing.T) {
			s := newSilent(t, "")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, _, err := open(t, "postgres://u@"+s.addr+"/d?sslmode=disable").open(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("connect: %v, want context.DeadlineExceeded", err)
			}
		})
		t.Run(base+"/over before it begins", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := open(t, pgtest.Database(t)).open(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("connect: %v, want context.Canceled", err)
			}
		})
	}
}

// A socket's deadline may pass before the context notices that it is its own. Then too it is the context that has ended.
func TestDeadlineBeforeItsContext(t *testing.T) {
	late := &lateContext{Context: t.Context(), done: make(chan struct{})}
	dials := 0
	e, err := Pgx("db", "postgres://u@127.0.0.1/d?sslmode=disable", Options{}, func(c *pgx.ConnConfig) error {
		c.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			if dials++; dials == 1 {
				time.AfterFunc(20*time.Millisecond, func() { close(late.done) })
			}
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := e.open(late); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connect: %v, want context.DeadlineExceeded", err)
	}
	if _, _, err := e.open(t.Context()); !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connect: %v, want the dial's own timeout", err)
	}
}

// lateContext has a deadline that has passed, and ends only when done is closed.
type lateContext struct {
	context.Context
	done chan struct{}
}

func (*lateContext) Deadline() (time.Time, bool) { return clock.Time(0), true }
func (c *lateContext) Done() <-chan struct{}     { return c.done }

func (c *lateContext) Err() error {
	select {
	case <-c.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Once connected, the end of the context that it was opened with means nothing to a connection.
func TestConnectedOutlivesContext(t *testing.T) {
	for base, open := range bases {
		t.Run(base, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			c, s, err := open(t, pgtest.Database(t)).open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			cancel()
			wantSound(t, c, s)
		})
	}
}

// The socket is the one that the base goes on with, also when it had to dial twice: first for TLS, which the server hasn't.
func TestSocketOfFallback(t *testing.T) {
	for base, open := range bases {
		t.Run(base, func(t *testing.T) {
			dsn, err := url.Parse(pgtest.Database(t))
			if err != nil {
				t.Fatal(err)
			}
			dsn.RawQuery = "sslmode=prefer"
			c, s, err := open(t, dsn.String()).open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wantSound(t, c, s)
		})
	}
}

// Under TLS the socket is ours all the same.
func TestSocketUnderTLS(t *testing.T) {
	for base, open := range bases {
		t.Run(base, func(t *testing.T) {
			dsn := pgtest.Database(t)
			at, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			proxy := pgtest.NewProxy(t, at.Host, pgtest.WithTLS())
			c, s, err := open(t, proxy.DSN(dsn)).open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			wantSound(t, c, s)
			proxy.ResetAll()
			for deadline := time.Now().Add(10 * time.Second); s.Peek() != wire.PeekClosed; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the reset never arrives")
				}
			}
		})
	}
}

// A base that says goodbye to a server which doesn't listen gets wire.CloseLimit for it.
func TestCloseIsForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		s := wire.NewSocket(client)
		c := &pqConn{common{features: featuresOf(politeConn{s}), socket: s}}
		start := time.Now()
		closed := make(chan time.Duration, 1)
		c.Close(func() { closed <- time.Since(start) })
		if took := <-closed; took != wire.CloseLimit {
			t.Errorf("closed after %v, want %v", took, wire.CloseLimit)
		}
	})
}

// politeConn is a base connection that waits for the server to take its goodbye.
type politeConn struct{ s *wire.Socket }

func (c politeConn) Close() error {
	_, _ = c.s.Write([]byte("X\x00\x00\x00\x04"))
	return c.s.Close()
}
func (politeConn) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not here") }
func (politeConn) Begin() (driver.Tx, error)           { return nil, errors.New("not here") }

// wantSound checks that a connection works and that its calls go over s.
func wantSound(t *testing.T, c driver.Conn, s *wire.Socket) {
	t.Helper()
	if s == nil {
		t.Fatal("the connection's socket isn't known")
	}
	before := s.Writes()
	if err := c.(driver.Pinger).Ping(t.Context()); err != nil {
		t.Fatalf("ping: %v", err)
	}
	if s.Writes() == before {
		t.Error("a ping went over another socket")
	}
	wantPeek(t, s, wire.PeekQuiet)
}

// within gives what a channel brings, and fails when it takes too long.
func within[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("waited too long for %s", what)
	}
	return v
}

// open connects as a pool does.
func (e *Endpoint) open(ctx context.Context) (driver.Conn, *wire.Socket, error) {
	c, err := e.Connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	return c.Raw(), c.Socket(), nil
}

func wantPeek(t *testing.T, s *wire.Socket, want wire.Peek) {
	t.Helper()
	if got := s.Peek(); got != want {
		t.Errorf("peek = %v, want %v", got, want)
	}
}
