package wire

import (
	"io"
	"net"
)

// callReader is what a base driver's calls read through. Under it pgx may go on reading the socket in the background after a write
// that took long (its bgreader), even on a connection that nobody uses; so that somebody reads the socket does not mean
// that anybody waits.
type callReader struct {
	io.Reader
	socket *Socket
}

func (r callReader) Read(b []byte) (int, error) {
	if r.Reader == io.Reader(r.socket) {
		return r.socket.read(b, underWay|forCall)
	}
	r.socket.traffic.begin(forCall)
	defer r.socket.traffic.end(forCall)
	return r.Reader.Read(b)
}

// ReadsOfCalls is a reader over r that lets the socket under conn know of reads that calls wait for; r itself where that isn't ours.
func ReadsOfCalls(r io.Reader, conn any) io.Reader {
	s := socketUnder(conn)
	if s == nil {
		return r
	}
	s.throughCalls = true
	return callReader{r, s}
}

// CallWaits says whether a call waits for the server; known is false where its reads can't be told from others.
func (s *Socket) CallWaits() (waits, known bool) {
	if s == nil || !s.throughCalls {
		return false, false
	}
	return s.traffic.word.Load()&(written-forCall) > 0, true
}

// socketUnder finds our socket under a connection, as rawConn finds the system's.
func socketUnder(c any) *Socket {
	for {
		switch under := c.(type) {
		case *Socket:
			return under
		case interface{ NetConn() net.Conn }:
			c = under.NetConn()
		default:
			return nil
		}
	}
}
