package pgtest

import (
	"errors"
	"net"
	"time"
)

// BlackHole makes the server one whose address swallows SYNs, as a firewall does that drops: it is frozen, so that it accepts
// nothing, and its queue of connections filled, so that the system drops what else comes. Needs no root, and is soon done when
// max_connections is small. What it returns makes all well again.
func (c *Cluster) BlackHole() (undo func() error, err error) {
	if err := c.Freeze(); err != nil {
		return nil, err
	}
	var plugs []net.Conn
	undo = func() error {
		for _, plug := range plugs {
			plug.Close()
		}
		return c.Thaw()
	}
	for range 1000 {
		plug, err := net.DialTimeout("tcp", c.Addr(), 30*time.Millisecond)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return undo, nil
		}
		if err != nil {
			return nil, errors.Join(err, undo())
		}
		plugs = append(plugs, plug)
	}
	return nil, errors.Join(c.errorf("has a queue of connections that is never full"), undo())
}
