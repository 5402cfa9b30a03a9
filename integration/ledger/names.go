package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is the names of a run's servers, which all lead to this machine as long as the name server isn't away.
type zone struct {
	name string
	away atomic.Bool
}

// zones are all that there are, by name.
var zones sync.Map

var lastZone atomic.Int64

// newZone makes a zone. The first one makes the process ask us for names.
func newZone() *zone {
	n := lastZone.Add(1)
	if n == 1 {
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go serveNames(server)
			return client, nil
		}}
	}
	z := &zone{name: fmt.Sprintf("z%d.ledger.test", n)}
	zones.Store(z.name, z)
	return z
}

// host is a name in it.
func (z *zone) host(n int) string { return fmt.Sprintf("server%d.%s", n, z.name) }

// serveNames answers one question, in the framing of streams (RFC 1035, 4.2.2).
func serveNames(c net.Conn) {
	defer c.Close()
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return
	}
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		return
	}
	q := m.Questions[0]
	_, under, _ := strings.Cut(strings.TrimSuffix(q.Name.String(), "."), ".")
	found, known := zones.Load(under)
	if known && found.(*zone).away.Load() {
		return
	}
	m.Response, m.Authoritative, m.Additionals = true, true, nil
	switch {
	case !known:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	answer, err := m.Pack()
	if err != nil {
		return
	}
	_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
}
