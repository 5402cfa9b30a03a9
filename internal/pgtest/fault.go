package pgtest

import (
	"bytes"
	"strings"
)

// Fault is something that goes wrong once, at the next message that On accepts.
//
// The batch with that message, up to the Query or the Sync that ends it, is forwarded; the proxy waits until the server
// has answered all of it, keeps the answer, and then does Do. So the statement has certainly run, and the client doesn't
// know.
type Fault struct {
	On     func(Message) bool // called for one message at a time
	Do     Action
	Before bool   // nothing of the batch is forwarded: the statement has certainly not run
	NoWait bool   // Do happens at once after forwarding: whether the statement has run is open, and pgx may cancel it yet
	Hook   func() // called right before Do, if not nil: to end a context at that moment

	fired chan struct{}
}

// OnQuery accepts a simple-protocol Query whose SQL contains text.
func OnQuery(text string) func(Message) bool {
	return func(m Message) bool { return m.Type == 'Q' && strings.Contains(m.Text, text) }
}

// OnParse accepts the preparation of a statement whose SQL contains text.
func OnParse(text string) func(Message) bool {
	return func(m Message) bool { return m.Type == 'P' && strings.Contains(m.Text, text) }
}

// OnExecute accepts any extended-protocol Execute.
func OnExecute() func(Message) bool {
	return func(m Message) bool { return m.Type == 'E' }
}

// OnText accepts whatever runs a statement whose SQL contains text: a Query, or the Execute of a statement prepared from it
// at any time before.
func OnText(text string) func(Message) bool {
	return func(m Message) bool {
		return (m.Type == 'Q' || m.Type == 'E') && strings.Contains(m.Text, text)
	}
}

// Action is what a fault does to its connection. It reports whether the connection goes on.
type Action func(*session) bool

// Reset ends the connection with a TCP reset, as a crashed machine or a firewall does.
func Reset(s *session) bool {
	s.reset()
	return false
}

// CloseQuietly ends the connection in good order but without a word, as a crashed server process does.
func CloseQuietly(*session) bool { return false }

// Hang leaves the connection open and sends nothing more on it until [Proxy.Release], which sends what was kept back.
func Hang(s *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hung = true
	return true
}

// PassLastWords waits until the server has ended the session by itself, passes on what it said last, and closes the connection.
// With Before it is a statement that crosses those words on the wire.
func PassLastWords(s *session) bool {
	s.mu.Lock()
	for !s.lost {
		s.changed.Wait()
	}
	kept := s.kept
	s.mu.Unlock()
	s.replace(kept)
	return false
}

// Fatal sends an error of severity FATAL with that SQLSTATE in place of the answer and closes the connection, as a server
// does that was told to shut down (57P01).
func Fatal(sqlstate string) Action {
	return func(s *session) bool {
		s.replace(errorResponse(sqlstate, "terminating connection on behalf of a test"))
		return false
	}
}

// Answer sends raw in place of the answer; the connection goes on. It is not for NoWait.
func Answer(raw []byte) Action {
	return func(s *session) bool { return s.replace(raw) == nil }
}

// AnswerUntil sends the server's answer up to and with the first message of a type, 'C' for CommandComplete for one, and
// closes the connection.
func AnswerUntil(kind byte) Action {
	return func(s *session) bool {
		s.mu.Lock()
		kept := bytes.NewReader(s.kept)
		s.mu.Unlock()
		var part []byte
		for {
			raw, err := readMessage(kept)
			if err != nil {
				break
			}
			part = append(part, raw...)
			if raw[0] == kind {
				break
			}
		}
		s.replace(part)
		return false
	}
}
