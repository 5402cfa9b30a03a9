package main

import (
	"io"
	"net"
	"sync"
)

// proxy stands before a server, and resets all connections at once.
type proxy struct {
	listener net.Listener
	upstream string
	serving  sync.WaitGroup

	mu      sync.Mutex
	clients map[*net.TCPConn]bool
}

func newProxy(upstream string) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, upstream: upstream, clients: map[*net.TCPConn]bool{}}
	p.serving.Go(p.accept)
	return p, nil
}

func (p *proxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *proxy) serve(client *net.TCPConn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	p.note(client, true)
	defer p.note(client, false)
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	_, _ = io.Copy(client, server)
	server.Close()
}

func (p *proxy) note(client *net.TCPConn, there bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if there {
		p.clients[client] = true
	} else {
		delete(p.clients, client)
	}
}

// reset ends every connection with a TCP reset, as a firewall does that has lost its table.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client := range p.clients {
		_ = client.SetLinger(0)
		client.Close()
	}
}

func (p *proxy) close() {
	p.listener.Close()
	p.reset()
	p.serving.Wait()
}
