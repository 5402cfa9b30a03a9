package wire

import (
	"net"
	"syscall"
	"testing"
	"time"
)

func TestUserTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, want := range []time.Duration{0, 1500 * time.Millisecond} {
		d := Dialer{UserTimeout: want}
		c, err := d.Open(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var got int
		if err := rawConn(c).Control(func(fd uintptr) {
			got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout)
		}); err != nil {
			t.Fatal(err)
		}
		if err != nil || got != int(want.Milliseconds()) {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, %v; want %v", got, err, want)
		}
		c.Close()
	}
}
