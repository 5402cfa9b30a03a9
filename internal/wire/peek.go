package wire

// Peek is what a look at a socket's receive buffer tells without reading from it.
type Peek int

// What a Peek may tell.
const (
	PeekUnknown Peek = iota // the system or the dialer has no way to look
	PeekQuiet               // open, nothing to read: as an idle connection should be
	PeekUnread              // something came that nobody read: a notice, a notification, or the server's last words
	PeekClosed              // the server closed it, or it was reset
)

// Peek looks whether the peer has closed the connection. It never blocks, and is not to be called concurrently.
func (s *Socket) Peek() Peek {
	if s == nil {
		return PeekUnknown
	}
	if s.IsBroken() {
		return PeekClosed
	}
	s.look.found = PeekUnknown
	if s.raw == nil {
		return PeekUnknown
	}
	// Control, not Read: a peek must not wait for a reader's turn.
	if err := s.raw.Control(s.look.at); err != nil {
		return PeekClosed
	}
	return s.look.found
}
