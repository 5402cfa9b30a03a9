package wire

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
)

func TestGoodbye(t *testing.T) {
	terminate := []byte{'X', 0, 0, 0, 4}
	record := func(contentType, major, minor byte, payload int) []byte {
		return append([]byte{contentType, major, minor, 0, byte(payload)}, make([]byte, payload)...)
	}
	for name, test := range map[string]struct {
		sent []byte
		want bool
	}{
		"Terminate":                         {terminate, true},
		"Sync, as short":                    {[]byte{'S', 0, 0, 0, 4}, false},
		"Flush, as short":                   {[]byte{'H', 0, 0, 0, 4}, false},
		"the shortest Query":                {[]byte{'Q', 0, 0, 0, 5, 0}, false},
		"Terminate behind a Sync":           {append([]byte{'S', 0, 0, 0, 4}, terminate...), false},
		"nothing":                           {nil, false},
		"a TLS 1.3 record of that length":   {record(23, 3, 3, 22), true},
		"the record of the shortest Query":  {record(23, 3, 3, 23), false},
		"an alert of that length":           {record(21, 3, 3, 22), false},
		"another version":                   {record(23, 3, 1, 22), false},
		"a text of a TLS record's length":   {bytes.Repeat([]byte("Q"), 27), false},
		"a TLS record cut after its header": {[]byte{23, 3, 3, 0, 22}, false},
	} {
		if got := goodbye(test.sent); got != test.want {
			t.Errorf("%s: goodbye = %v, want %v", name, got, test.want)
		}
	}
}

// What TLS makes of a Terminate is what goodbye takes it for, and of a Query it isn't.
func TestWritesUnderTLS(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, "tcp")
			s := NewSocket(client)
			peer := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
			go func() { _, _ = io.Copy(io.Discard, peer) }()
			c := tls.Client(s, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			before := s.Writes()
			write(t, c, []byte("Q\x00\x00\x00\x05\x00"))
			if sent := s.Writes() - before; sent != 1 {
				t.Errorf("a Query counts as %d writes, want 1", sent)
			}
			before = s.Writes()
			write(t, c, []byte("X\x00\x00\x00\x04"))
			want := int64(0)
			if version == tls.VersionTLS12 {
				want = 1 // can't be told, and counts
			}
			if sent := s.Writes() - before; sent != want {
				t.Errorf("a Terminate counts as %d writes, want %d", sent, want)
			}
		})
	}
}

func TestPeek(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Run("quiet", func(t *testing.T) {
				client, _ := pair(t, network)
				wantPeek(t, NewSocket(client), PeekQuiet)
			})
			t.Run("unread", func(t *testing.T) {
				client, server := pair(t, network)
				s := NewSocket(client)
				write(t, server, []byte("NOTICE"))
				awaitPeek(t, s, PeekUnread)
				// Looking takes nothing away.
				got := make([]byte, 6)
				if _, err := io.ReadFull(s, got); err != nil || string(got) != "NOTICE" {
					t.Fatalf("read %q, %v after the peek", got, err)
				}
				wantPeek(t, s, PeekQuiet)
			})
			t.Run("closed", func(t *testing.T) {
				client, server := pair(t, network)
				s := NewSocket(client)
				_ = server.Close()
				awaitPeek(t, s, PeekClosed)
			})
			t.Run("last words", func(t *testing.T) {
				client, server := pair(t, network)
				s := NewSocket(client)
				write(t, server, []byte("FATAL"))
				_ = server.Close()
				awaitPeek(t, s, PeekUnread)
			})
			t.Run("our own close", func(t *testing.T) {
				client, _ := pair(t, network)
				s := NewSocket(client)
				_ = s.Close()
				wantPeek(t, s, PeekClosed)
			})
			t.Run("under TLS's wrapper", func(t *testing.T) {
				client, server := pair(t, network)
				s := NewSocket(tls.Client(client, &tls.Config{}))
				wantPeek(t, s, PeekQuiet)
				_ = server.Close()
				awaitPeek(t, s, PeekClosed)
			})
		})
	}
	t.Run("reset", func(t *testing.T) {
		client, server := pair(t, "tcp")
		s := NewSocket(client)
		_ = server.(*net.TCPConn).SetLinger(0)
		_ = server.Close()
		awaitPeek(t, s, PeekClosed)
	})
	t.Run("no system's socket", func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		s := NewSocket(client)
		wantPeek(t, s, PeekUnknown)
		_ = s.Close()
		wantPeek(t, s, PeekClosed)
	})
	t.Run("no allocation", func(t *testing.T) {
		client, _ := pair(t, "tcp")
		s := NewSocket(client)
		if n := testing.AllocsPerRun(100, func() { s.Peek() }); n > 0 {
			t.Errorf("a peek allocates %v times", n)
		}
	})
}

// Whoever uses a socket that was closed for a reason gets that reason, and the first one stays.
func TestCloseFor(t *testing.T) {
	reason := errors.New("taken back")
	client, _ := pair(t, "tcp")
	s := NewSocket(client)
	read := make(chan error)
	go func() {
		_, err := s.Read(make([]byte, 1))
		read <- err
	}()
	s.CloseFor(reason)
	if err := <-read; !errors.Is(err, reason) {
		t.Errorf("the blocked reader gets %v", err)
	}
	if _, err := s.Write([]byte("Q")); !errors.Is(err, reason) {
		t.Errorf("a late writer gets %v", err)
	}
	s.CloseFor(errors.New("another reason"))
	if err := s.Broken(); !errors.Is(err, reason) {
		t.Errorf("broken = %v", err)
	}
	if n := s.Writes(); n != 0 {
		t.Errorf("%d writes counted where none went out", n)
	}
}

// Who may write no more still gets the answer to what was sent, and then the reason.
func TestRefuseWrites(t *testing.T) {
	reason := errors.New("fenced")
	client, server := pair(t, "tcp")
	s := NewSocket(client)
	if _, err := s.Write([]byte("Q")); err != nil {
		t.Fatal(err)
	}
	if !s.RefuseWrites(reason) || s.RefuseWrites(errors.New("another reason")) {
		t.Error("it has to be the first time once")
	}
	if _, err := server.Write([]byte("C")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != nil || s.Broken() != nil {
		t.Errorf("the answer: %v, broken = %v", err, s.Broken())
	}
	sent := s.Writes()
	if _, err := s.Write([]byte("Q")); !errors.Is(err, reason) || !errors.Is(s.Broken(), reason) || s.Writes() != sent {
		t.Errorf("a late writer gets %v, broken = %v, %d writes of %d", err, s.Broken(), s.Writes(), sent)
	}
}

// A socket that its base driver closed is no one's to give a reason for.
func TestCloseForAfterClose(t *testing.T) {
	client, _ := pair(t, "tcp")
	s := NewSocket(client)
	_ = s.Close()
	s.CloseFor(errors.New("too late"))
	if err := s.Broken(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("broken = %v, want net.ErrClosed", err)
	}
}

func TestBroken(t *testing.T) {
	client, server := pair(t, "tcp")
	s := NewSocket(client)
	if err := s.Broken(); err != nil {
		t.Errorf("broken = %v on a sound socket", err)
	}
	_ = server.Close()
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read gives %v, want io.EOF as it is", err)
	}
	_ = s.Close()
	if err := s.Broken(); err != io.EOF {
		t.Errorf("broken = %v, want the first error", err)
	}
}

func TestWhenClosed(t *testing.T) {
	client, _ := pair(t, "tcp")
	s := NewSocket(client)
	calls := 0
	s.WhenClosed(func() { calls++ })
	if calls != 0 {
		t.Fatal("called while open")
	}
	_ = s.Close()
	_ = s.Close()
	if calls != 1 {
		t.Fatalf("called %d times by Close, want once", calls)
	}
	s.WhenClosed(func() { calls++ })
	if calls != 2 {
		t.Fatalf("not called at once on a closed socket")
	}
}

// The time of the last word moves with what is read, and not with an error.
func TestLastHeard(t *testing.T) {
	client, server := pair(t, "tcp")
	s := NewSocket(client)
	write(t, server, []byte("Z"))
	before := clock.Now()
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	heard := s.Heard()
	if heard < before {
		t.Errorf("heard at %v, read after %v", heard, before)
	}
	_ = server.Close()
	_, _ = s.Read(make([]byte, 1))
	if got := s.Heard(); got != heard {
		t.Errorf("the end of the stream counts as a word")
	}
}

// pair is a connected pair of the system's sockets.
func pair(t *testing.T, network string) (client, server net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "s") // t.TempDir may be too long for a socket's path
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		address = filepath.Join(dir, "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
	})
	return client, server
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func wantPeek(t *testing.T, s *Socket, want Peek) {
	t.Helper()
	if got := s.Peek(); got != want {
		t.Errorf("peek = %v, want %v", got, want)
	}
}

// awaitPeek waits until what the peer did has arrived.
func awaitPeek(t *testing.T, s *Socket, want Peek) {
	t.Helper()
	got := PeekUnknown
	eventually(t, func() bool {
		got = s.Peek()
		return got == want
	}, func() string { return fmt.Sprintf("peek = %v, want %v", got, want) })
}

// eventually waits for a condition, and fails with what complaint says when it doesn't come.
func eventually(t *testing.T, ok func() bool, complaint func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal(complaint())
		case <-tick.C:
		}
	}
}
