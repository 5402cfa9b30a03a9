//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd || solaris

package conn

import (
	"context"
	"database/sql/driver"
	"math"
	"net"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/internal/wire"
)

// A connection that has just been used is lent without a look at its socket, which is a system call. That trust ends
// soon, and as soon as another one is found broken.
func TestPrePingLooksUnlessJustUsed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	const free = time.Hour
	nowhere, err := base.Own("nowhere", fakeConnector{}).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ph := newPhysical(nowhere)
	ph.sock, ph.freeSince, ph.signals = wire.NewSocket(c), free, new(evidence.Signals)
	for deadline := time.Now().Add(10 * time.Second); ph.sock.Peek() != wire.PeekQuiet; {
		if time.Now().After(deadline) {
			t.Fatal("an open, quiet socket is never seen as one")
		}
	}
	server.Close()
	for ph.sock.Peek() != wire.PeekClosed {
		time.Sleep(time.Millisecond)
	}

	p := New(Options{Name: "app", Size: 1, PrePing: true}, straight{})
	defer p.Close()
	ph.pool, ph.expires = p, math.MaxInt64
	if err := p.ready(t.Context(), ph, free+justUsed-1); err != nil {
		t.Errorf("just used: %v, want no look", err)
	}
	if err := p.ready(t.Context(), ph, free+justUsed); err != driver.ErrBadConn {
		t.Errorf("free for longer: %v", err)
	}
	p.lastLoss.Store(int64(free))
	if err := p.ready(t.Context(), ph, free); err != driver.ErrBadConn {
		t.Errorf("just used, but another one was lost meanwhile: %v", err)
	}
	p.lastLoss.Store(0)
	if err := p.ready(t.Context(), ph, free); err != nil {
		t.Errorf("just used, and no other one was lost: %v, want no look", err)
	}
	_ = ph.sock.Close()
	if err := p.ready(t.Context(), ph, free); err != driver.ErrBadConn {
		t.Errorf("just used, but closed from outside: %v", err)
	}
}

// A server that hung is asked until it has answered once.
func TestPrePingOfHungServer(t *testing.T) {
	asked := &pinged{}
	c, err := base.Own("nowhere", asked).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ph := newPhysical(c)
	ph.signals = new(evidence.Signals)
	ph.signals.Hung.Store(true)
	p := &Pool{}
	p.opts.PingTimeout = time.Minute
	for _, met := range []error{driver.ErrBadConn, nil, driver.ErrBadConn} {
		if asked.met = met; asked.pings == 2 {
			met = nil // it isn't asked any more
		}
		if err := ph.prePing(t.Context(), p, ph.freeSince); err != met {
			t.Errorf("after %d pings: %v, want %v", asked.pings, err, met)
		}
	}
}

// pinged counts pings, and says what they meet.
type pinged struct {
	fakeConnector
	fakeConn
	pings int
	met   error
}

func (p *pinged) Connect(context.Context) (driver.Conn, error) { return p, nil }

func (p *pinged) Ping(context.Context) error { p.pings++; return p.met }

// How long a connection may have been free to be lent as it was left goes by what is to be done with it otherwise.
func TestTrust(t *testing.T) {
	for _, test := range []struct {
		opts Options
		want time.Duration
	}{
		{Options{PrePing: true}, justUsed},
		{Options{}, math.MaxInt64},
		{Options{DiscardAll: true}, 0},
		{Options{DiscardAll: true, PrePing: true}, 0},
	} {
		test.opts.Name, test.opts.Size = "app", 1
		p := New(test.opts, straight{})
		if p.trust != test.want {
			t.Errorf("pre-ping %v, discard_all %v: %v, want %v", test.opts.PrePing, test.opts.DiscardAll, p.trust, test.want)
		}
		_ = p.Close()
	}
}
