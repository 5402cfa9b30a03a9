package pgtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Requests that come in place of a startup message (PostgreSQL's documentation, "Message Formats").
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssEncRequest = 80877104
)

// largestMessage is PostgreSQL's own limit.
const largestMessage = 1 << 30

var errFrame = errors.New("pgtest: not a message of PostgreSQL's protocol")

// Message is one that a client sends once its session is set up.
type Message struct {
	Type byte // 'Q' Query, 'P' Parse, 'B' Bind, 'E' Execute, 'S' Sync, and so on
	Body []byte
	Text string // the SQL of a Query or Parse, and of the statement that a Bind or Execute means
}

// readStartup reads a message without a type, the way a session or a request of another kind begins.
func readStartup(r io.Reader) (raw []byte, code uint32, err error) {
	header := make([]byte, 8)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, 0, err
	}
	size := binary.BigEndian.Uint32(header)
	if size < 8 || size > 10000 {
		return nil, 0, errFrame
	}
	raw = append(header, make([]byte, size-8)...)
	_, err = io.ReadFull(r, raw[8:])
	return raw, binary.BigEndian.Uint32(raw[4:]), err
}

// readMessage reads a message with its header: a type and the length of what follows the type.
func readMessage(r io.Reader) (raw []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size < 4 || size > largestMessage {
		return nil, errFrame
	}
	raw = make([]byte, 1+size)
	copy(raw, header[:])
	_, err = io.ReadFull(r, raw[5:])
	return raw, err
}

// statements remembers the SQL behind the names of one session's prepared statements and portals.
type statements struct {
	prepared, portals map[string]string
}

func newStatements() statements {
	return statements{prepared: map[string]string{}, portals: map[string]string{}}
}

func (s statements) message(raw []byte) Message {
	m := Message{Type: raw[0], Body: raw[5:]}
	first, rest := cutString(m.Body)
	second, _ := cutString(rest)
	switch m.Type {
	case 'Q':
		m.Text = first
	case 'P':
		m.Text = second
		s.prepared[first] = second
	case 'B':
		m.Text = s.prepared[second]
		s.portals[first] = m.Text
	case 'E':
		m.Text = s.portals[first]
	}
	return m
}

func cutString(b []byte) (s string, rest []byte) {
	before, after, _ := bytes.Cut(b, []byte{0})
	return string(before), after
}

// errorResponse is what a server says as it ends a session.
func errorResponse(sqlstate, text string) []byte {
	var body []byte
	for _, field := range []string{"SFATAL", "VFATAL", "C" + sqlstate, "M" + text} {
		body = append(append(body, field...), 0)
	}
	body = append(body, 0)
	raw := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(body)))
	return append(raw, body...)
}
