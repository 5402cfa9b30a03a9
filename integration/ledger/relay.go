package main

import (
	"net"
	"sync"
)

// relay passes bytes on between clients and a server's proxy, until it is shut: then they lie there. Clients connect all the
// same, and hear nothing. One that refuses takes no new clients, and leaves those that it has alone.
type relay struct {
	listener net.Listener
	upstream string
	serving  sync.WaitGroup

	mu       sync.Mutex
	opened   *sync.Cond
	shut     bool
	refusing bool
	closed   bool
	links    map[*link]bool
}

// link is a connection through it.
type link struct {
	client, server net.Conn
	held           bool // has had bytes that were not passed on at once
	cut            bool
}

func newRelay(upstream string) (*relay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: listener, upstream: upstream, links: map[*link]bool{}}
	r.opened = sync.NewCond(&r.mu)
	r.serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			r.serving.Go(func() { r.serve(c) })
		}
	})
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// close lets nothing more pass.
func (r *relay) close() {
	r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for l := range r.links {
		l.close()
	}
	r.opened.Broadcast()
	r.mu.Unlock()
	r.serving.Wait()
}

// hold shuts it.
func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
}

// refuse says whether new clients are turned away.
func (r *relay) refuse(refusing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusing = refusing
}

// resume opens it again. Lose means that what was held is gone, as in a black hole: its connections end.
func (r *relay) resume(lose bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = false
	for l := range r.links {
		if l.held && lose {
			l.close()
		}
		l.held = false
	}
	r.opened.Broadcast()
}

func (l *link) close() {
	l.cut = true
	if c, ok := l.client.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	l.client.Close()
	l.server.Close()
}

func (r *relay) serve(client net.Conn) {
	server, err := net.Dial("tcp", r.upstream)
	if err != nil {
		client.Close() // the server is down
		return
	}
	l := &link{client: client, server: server}
	r.mu.Lock()
	r.links[l] = true
	if r.closed || r.refusing {
		l.close()
	}
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.pass(l, client, server) })
	both.Go(func() { r.pass(l, server, client) })
	both.Wait()
	r.mu.Lock()
	delete(r.links, l)
	r.mu.Unlock()
}

func (r *relay) pass(l *link, from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if !r.may(l) || err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// may waits until bytes may pass. False means never.
func (r *relay) may(l *link) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.shut && !l.cut && !r.closed {
		l.held = true
		r.opened.Wait()
	}
	return !l.cut && !r.closed
}
