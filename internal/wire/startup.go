package wire

import (
	"bytes"
	"encoding/binary"
)

// startup reads along while a base driver that doesn't show its BackendKeyData opens a session, to have what a cancel request
// needs, and what the server reports of its role (PostgreSQL's "Message Formats", BackendKeyData and ParameterStatus). What is
// encrypted it can't read.
type startup struct {
	begun  bool
	sealed bool // what follows is encrypted
	role   Role
	rest   []byte // of a message that has not come whole
}

// Role is what PostgreSQL reports of itself in a startup, since version 14 (ParameterStatus); "" where it doesn't.
type Role struct {
	InHotStandby, DefaultTransactionReadOnly string // on or off
	PID                                      uint32 // 0 if it isn't known
}

func (r *Role) read(parameterStatus []byte) {
	name, value, _ := bytes.Cut(bytes.TrimSuffix(parameterStatus, []byte{0}), []byte{0})
	switch string(name) {
	case "in_hot_standby":
		r.InHotStandby = string(value)
	case "default_transaction_read_only":
		r.DefaultTransactionReadOnly = string(value)
	}
}

// longestStartup is more than any message of a startup is long; what claims to be longer is none.
const longestStartup = 1 << 16

// read takes in what was received, and says when there is nothing more to be had. The key is nil if there was none.
func (s *startup) read(b []byte) (key backendKey, over bool) {
	if !s.begun {
		// The answer to a request for encryption is one byte: 'N' goes on in the clear.
		if len(b) == 1 {
			s.begun = b[0] != 'N'
			s.sealed = s.begun
			return nil, s.begun
		}
		s.begun = true
	}
	s.rest = append(s.rest, b...)
	for len(s.rest) >= 5 {
		size := int(binary.BigEndian.Uint32(s.rest[1:]))
		if size < 4 || size > longestStartup {
			return nil, true
		}
		if len(s.rest) < 1+size {
			return nil, false
		}
		switch s.rest[0] {
		case 'S':
			s.role.read(s.rest[5 : 1+size])
		case 'K':
			return append(backendKey(nil), s.rest[5:1+size]...), true
		case 'Z', 'E': // ready, or refused
			return nil, true
		}
		s.rest = s.rest[1+size:]
	}
	return nil, false
}
