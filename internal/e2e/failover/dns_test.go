package failover_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// zone is what the name server of these tests knows. Both base drivers, bare or not, ask the process's resolver.
var zone = struct {
	sync.Mutex
	names map[string]*name
}{names: make(map[string]*name)}

func init() {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go serveNames(server)
		return client, nil
	}}
}

// name is one name and its addresses.
type name struct {
	host    string
	mu      sync.Mutex
	away    bool
	to      []string
	lookups atomic.Int64
}

// newName makes a name for the test's servers.
func newName(t *testing.T, addresses ...string) *name {
	t.Helper()
	host := strings.ToLower(strings.NewReplacer("/", "-", ",", "-", "_", "-", "=", "-", "#", "-").Replace(t.Name())) + ".example"
	n := &name{host: host, to: addresses}
	zone.Lock()
	defer zone.Unlock()
	if zone.names[host] != nil {
		t.Fatalf("%s is there already", host)
	}
	zone.names[host] = n
	t.Cleanup(func() {
		zone.Lock()
		defer zone.Unlock()
		delete(zone.names, host)
	})
	return n
}

// leadsTo changes its addresses.
func (n *name) leadsTo(addresses ...string) { n.mu.Lock(); defer n.mu.Unlock(); n.to = addresses }

// goAway makes its name server fail.
func (n *name) goAway(away bool) { n.mu.Lock(); defer n.mu.Unlock(); n.away = away }

// serveNames answers DNS questions (RFC 1035) as they are put over TCP.
func serveNames(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer := answerName(question)
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

func answerName(q []byte) []byte {
	const header, isA = 12, 1
	const noError, servFail, noSuchName = 0, 2, 3
	var labels []string
	at := header
	for q[at] > 0 {
		labels = append(labels, string(q[at+1:at+1+int(q[at])]))
		at += 1 + int(q[at])
	}
	end := at + 5 // the root, type and class
	kind := binary.BigEndian.Uint16(q[at+1:])
	zone.Lock()
	n := zone.names[strings.ToLower(strings.Join(labels, "."))]
	zone.Unlock()
	code, addresses := noSuchName, []string(nil)
	if n != nil {
		n.mu.Lock()
		if code = noError; n.away {
			code = servFail
		} else if kind == isA {
			addresses = n.to
			n.lookups.Add(1)
		}
		n.mu.Unlock()
	}
	a := append([]byte{q[0], q[1], 0x81, 0x80 | byte(code), 0, 1, 0, byte(len(addresses)), 0, 0, 0, 0}, q[header:end]...)
	for _, address := range addresses {
		ip := netip.MustParseAddr(address).As4()
		a = append(a, 0xc0, header, 0, isA, 0, 1, 0, 0, 0, 0, 0, 4) // the name of the question, class IN, not to be kept
		a = append(a, ip[:]...)
	}
	return a
}
