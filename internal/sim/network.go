package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// network is addresses, names for them, and the connections between the program and the servers. All is in one place and under one lock, as
// only one goroutine runs at a time.
type network struct {
	log    func(format string, args ...any)
	delay  func() time.Duration // of a new connection, in each direction
	listen map[string]listener  // by address with port

	mu     sync.Mutex // guards what follows
	names  map[string][]string
	mute   error                           // what each lookup meets; nil: it answers
	gone   map[string]bool                 // addresses to which nothing arrives, and from which nothing comes
	slow   time.Duration                   // added to the delay
	late   func(answer bool) time.Duration // added to that of a part
	links  []*link                         // open ones, the oldest first
	lastID int
	// brokenOff are the connections of the load's that the program has closed while the server would have gone on, and may not.
	brokenOff []int
	keeps     func(*link) bool // it may not close this one; called with the lock
	// cutShort are connections that the program has closed in the middle of a question, for nothing but that its asker had no more time.
	cutShort []int
	answers  func(*link) bool // the question would be answered; called with the lock
}

// listener is who answers at an address.
type listener interface {
	// accept says whether somebody listens.
	accept() bool
	// serve is called with the server's end, on a goroutine of its own.
	serve(*end)
}

// link is one connection.
type link struct {
	net            *network
	id             int
	address        string
	opened         time.Time
	up, down       *pipe // to the server, and from it
	client, server *end
	wrote          bool      // a statement of the load's has written here, so it is no probe's
	asked          time.Time // when the last command came, if it asks what became of a transaction; else zero
	asking         bool      // and isn't answered
}

// pipe is one direction of a link.
type pipe struct {
	delay   time.Duration
	parts   []part
	last    time.Time     // when the last part arrives
	sent    time.Time     // when that was sent which was read last
	dead    error         // what reading and writing meet from now on
	over    bool          // the end was sent
	lost    bool          // what is written from now on arrives nowhere
	cut     cut           // what happens after so many bytes
	changed chan struct{} // closed, and replaced, when something has changed
}

// part is some bytes under way, or the end.
type part struct {
	data []byte
	err  error // io.EOF or a reset, in place of data
	at   time.Time
	sent time.Time
}

// cut is what happens to a link after so many more bytes in one direction.
type cut struct {
	how   string // "": nothing
	after int
}

// end is one side of a link: a net.Conn.
type end struct {
	link     *link
	in, out  *pipe
	name     string
	closed   bool
	deadline struct{ read, write time.Time }
}

var _ net.Conn = (*end)(nil)

func newNetwork(log func(string, ...any), delay func() time.Duration, late func(answer bool) time.Duration) *network {
	return &network{log: log, delay: delay, late: late, listen: make(map[string]listener), names: make(map[string][]string), gone: make(map[string]bool)}
}

func (n *network) lookup(ctx context.Context, name string) ([]string, error) {
	time.Sleep(100 * time.Microsecond)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mute != nil {
		return nil, &net.DNSError{Err: n.mute.Error(), Name: name, IsTemporary: true}
	}
	if a, ok := n.names[name]; ok {
		return slices.Clone(a), nil
	}
	return []string{name}, ctx.Err()
}

func refused(address string, errno syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: os.NewSyscallError("connect", errno)}
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	d := n.delay()
	wait := func(d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return ctx.Err()
		case <-ctx.Done():
			return &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: ctx.Err()}
		}
	}
	n.mu.Lock()
	d += n.slow
	n.mu.Unlock()
	if err := wait(2 * d); err != nil {
		return nil, err
	}
	for n.isGone(address) { // the system asks again
		if err := wait(50 * time.Millisecond); err != nil {
			return nil, err
		}
	}
	l := n.listen[address]
	if l == nil || !l.accept() {
		return nil, refused(address, syscall.ECONNREFUSED)
	}
	n.mu.Lock()
	n.lastID++
	k := &link{net: n, id: n.lastID, address: address, opened: time.Now(), up: newPipe(d), down: newPipe(d)}
	k.client = &end{link: k, in: k.down, out: k.up, name: "client"}
	k.server = &end{link: k, in: k.up, out: k.down, name: "server"}
	n.links = append(n.links, k)
	n.mu.Unlock()
	go l.serve(k.server)
	return k.client, nil
}

func (n *network) isGone(address string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone[address]
}

func newPipe(delay time.Duration) *pipe { return &pipe{delay: delay, changed: make(chan struct{})} }

func (p *pipe) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// sendLocked puts a part on its way.
func (k *link) sendLocked(p *pipe, b []byte, err error) {
	at := time.Now().Add(p.delay + k.net.slow + k.net.late(p == k.down))
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	p.parts = append(p.parts, part{slices.Clone(b), err, at, time.Now()})
	p.notify()
}

func (e *end) Read(b []byte) (int, error) {
	n := e.link.net
	for {
		n.mu.Lock()
		now, p := time.Now(), e.in
		wait := time.Duration(-1)
		switch d := e.deadline.read; {
		case e.closed:
			n.mu.Unlock()
			return 0, e.failed("read", net.ErrClosed)
		case !d.IsZero() && !now.Before(d):
			n.mu.Unlock()
			return 0, e.failed("read", os.ErrDeadlineExceeded)
		case !d.IsZero():
			wait = d.Sub(now)
		}
		if len(p.parts) > 0 {
			first := &p.parts[0]
			if !first.at.After(now) {
				if err := first.err; err != nil {
					n.mu.Unlock()
					return 0, e.failed("read", err)
				}
				p.sent = first.sent
				c := copy(b, first.data)
				if first.data = first.data[c:]; len(first.data) == 0 {
					p.parts = p.parts[1:]
				}
				n.mu.Unlock()
				return c, nil
			}
			if d := first.at.Sub(now); wait < 0 || d < wait {
				wait = d
			}
		}
		if p.dead != nil && len(p.parts) == 0 {
			n.mu.Unlock()
			return 0, e.failed("read", p.dead)
		}
		changed := p.changed
		n.mu.Unlock()
		if wait < 0 {
			<-changed
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

func (e *end) Write(b []byte) (int, error) {
	n := e.link.net
	n.mu.Lock()
	defer n.mu.Unlock()
	p := e.out
	switch d := e.deadline.write; {
	case e.closed:
		return 0, e.failed("write", net.ErrClosed)
	case !d.IsZero() && !time.Now().Before(d):
		return 0, e.failed("write", os.ErrDeadlineExceeded)
	case p.dead != nil:
		return 0, e.failed("write", p.dead)
	case p.over:
		return 0, e.failed("write", syscall.EPIPE)
	case p.lost || n.gone[e.link.address]:
		p.lost = true
		return len(b), nil
	}
	if p.cut.how != "" {
		if p.cut.after >= len(b) {
			p.cut.after -= len(b)
		} else {
			if p.cut.after > 0 {
				e.link.sendLocked(p, b[:p.cut.after], nil)
			}
			e.link.cutNowLocked(p, p.cut.how)
			return len(b), nil
		}
	}
	if other := e.other(); other.closed {
		e.link.resetLocked()
		return len(b), nil
	}
	e.link.sendLocked(p, b, nil)
	return len(b), nil
}

func (e *end) other() *end {
	if e == e.link.client {
		return e.link.server
	}
	return e.link.client
}

// failed makes the system's error of one.
func (e *end) failed(op string, err error) error {
	var errno syscall.Errno
	switch {
	case err == io.EOF:
		return err
	case errors.As(err, &errno):
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: "tcp", Addr: addr(e.link.address), Err: err}
}

// cutNowLocked lets a link end in the way that is meant.
func (k *link) cutNowLocked(p *pipe, how string) {
	p.cut = cut{}
	k.net.log("link %d to %s: %s", k.id, k.address, how)
	switch how {
	case "reset":
		k.resetLocked()
	case "half-closed":
		p.over = true
		k.sendLocked(p, nil, io.EOF)
	case "lost":
		k.up.lost, k.down.lost = true, true
	}
}

// resetLocked ends both directions, behind what is under way.
func (k *link) resetLocked() {
	for _, p := range []*pipe{k.up, k.down} {
		if p.dead == nil {
			p.dead = syscall.ECONNRESET
			k.sendLocked(p, nil, syscall.ECONNRESET)
		}
	}
}

func (e *end) Close() error {
	n := e.link.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.closed {
		return e.failed("close", net.ErrClosed)
	}
	e.closed = true
	if k := e.link; e == k.client && k.wrote && !k.server.closed && k.down.dead == nil && n.keeps(k) {
		n.brokenOff = append(n.brokenOff, k.id)
		n.log("link %d to %s, opened at %v, is given up", k.id, k.address, k.opened)
	}
	if k := e.link; e == k.client && k.wrote && k.cutsShort() && n.answers(k) {
		n.cutShort = append(n.cutShort, k.id)
		n.log("link %d to %s is closed in the middle of a question", k.id, k.address)
	}
	if !e.out.over && e.out.dead == nil && !e.out.lost && !n.gone[e.link.address] {
		e.link.sendLocked(e.out, nil, io.EOF)
	}
	e.out.over = true
	e.in.notify()
	if k := e.link; e.other().closed || k.server.closed && !k.down.lost {
		n.links = slices.DeleteFunc(n.links, func(k *link) bool { return k == e.link })
	}
	return nil
}

// cutsShort says that closing the link ends a question on its way that nothing else stands in the way of.
func (k *link) cutsShort() bool {
	broken := k.server.closed || k.down.dead != nil || k.up.lost || k.down.lost || k.up.over || k.down.over || k.net.gone[k.address]
	return !k.asked.IsZero() && (k.asking || len(k.down.parts) > 0) && !broken
}

// question notes that a command has come, and whether it asks what became of a transaction.
func (k *link) question(asks bool) {
	k.net.mu.Lock()
	defer k.net.mu.Unlock()
	k.asked, k.asking = time.Time{}, asks
	if asks {
		k.asked = time.Now()
	}
}

// answered notes that the command is answered.
func (k *link) answered() {
	k.net.mu.Lock()
	defer k.net.mu.Unlock()
	k.asking = false
}

// CloseWrite is what *net.TCPConn has, too.
func (e *end) CloseWrite() error {
	n := e.link.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if e.closed || e.out.over || e.out.dead != nil {
		return e.failed("close", syscall.ENOTCONN)
	}
	e.out.over = true
	if !e.out.lost && !n.gone[e.link.address] {
		e.link.sendLocked(e.out, nil, io.EOF)
	}
	return nil
}

func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetWriteDeadline(t)
	return e.SetReadDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	n := e.link.net
	n.mu.Lock()
	defer n.mu.Unlock()
	e.deadline.read = t
	e.in.notify()
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	n := e.link.net
	n.mu.Lock()
	defer n.mu.Unlock()
	e.deadline.write = t
	return nil
}

func (e *end) LocalAddr() net.Addr  { return addr("10.9.9.9:1") }
func (e *end) RemoteAddr() net.Addr { return addr(e.link.address) }
func (e *end) String() string       { return fmt.Sprintf("%s of link %d", e.name, e.link.id) }

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
