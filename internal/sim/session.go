package sim

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// session is a server's process for one connection.
type session struct { // More than 15 fields: what a session of PostgreSQL's has.
	server  *server
	conn    *end
	wire    net.Conn // that, or TLS over it
	backend *pgproto3.Backend
	pid     uint32
	key     uint32
	began   time.Time
	died    chan struct{} // the server's down when the session began

	cancelled  chan struct{} // a cancel request has come
	terminated chan struct{} // closed by pg_terminate_backend
	idle       bool          // it waits for a command; guarded by the cluster's lock
	state      byte          // ReadyForQuery's

	readOnly, txReadOnly bool
	tx                   *transaction // nil: nothing is written
	toldStandby          bool
	toldReadOnly         bool
	older                bool // than the server's promotion
	statements           map[string]string
	bound                bound
	failed               bool // what comes is passed over up to a Sync
}

// bound is a portal.
type bound struct {
	text string
	args []string
}

// ending is why a session goes no further.
type ending string

func (e ending) Error() string { return string(e) }

const (
	gone      ending = "the server has died, or the client has gone"
	cancelled ending = "cancelled"
	ended     ending = "terminated"
)

// serve answers a connection.
func (s *server) serve(conn *end) {
	wire := net.Conn(conn)
	defer func() { _ = wire.Close() }()
	backend := pgproto3.NewBackend(wire, wire)
	for {
		if !s.goesOn() {
			return
		}
		m, err := backend.ReceiveStartupMessage()
		if err != nil || !s.goesOn() {
			return
		}
		switch m := m.(type) {
		case *pgproto3.SSLRequest:
			answer := "N"
			if s.tls {
				answer = "S"
			}
			if _, err := wire.Write([]byte(answer)); err != nil {
				return
			}
			if s.tls {
				wire = tls.Server(conn, tlsConfig())
				backend = pgproto3.NewBackend(wire, wire)
			}
		case *pgproto3.GSSEncRequest:
			if _, err := wire.Write([]byte("N")); err != nil {
				return
			}
		case *pgproto3.CancelRequest:
			s.cancel(m.ProcessID, m.SecretKey)
			return
		case *pgproto3.StartupMessage:
			s.session(conn, wire, backend)
			return
		}
	}
}

// goesOn waits while the server is frozen. It is false if it has died.
func (s *server) goesOn() bool {
	for {
		s.cluster.mu.Lock()
		up, thawed := s.up, s.thawed
		s.cluster.mu.Unlock()
		if !up || thawed == nil {
			return up
		}
		<-thawed
	}
}

func (s *server) cancel(pid uint32, key []byte) {
	c := s.cluster
	c.mu.Lock()
	how := s.cancels
	c.mu.Unlock()
	switch most := 2 * time.Millisecond; how {
	case "lost":
		return
	case "late":
		most *= 100
		fallthrough
	default:
		time.Sleep(c.took(most))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	one := s.sessions[pid]
	if one == nil || len(key) != 4 || binary.BigEndian.Uint32(key) != one.key || one.idle {
		return
	}
	select {
	case one.cancelled <- struct{}{}:
	default:
	}
}

func (s *server) session(conn *end, wire net.Conn, backend *pgproto3.Backend) {
	c := s.cluster
	time.Sleep(c.took(3 * time.Millisecond))
	if !s.goesOn() {
		return
	}
	c.mu.Lock()
	refusal := ""
	switch {
	case s.closing:
		refusal = "57P03"
	case s.full:
		refusal = "53300"
	}
	if refusal != "" {
		c.mu.Unlock()
		backend.Send(s.fatal(refusal))
		_ = backend.Flush()
		return
	}
	s.lastPID++
	one := &session{
		server: s, conn: conn, wire: wire, backend: backend, pid: s.lastPID, key: s.lastPID * 7919, began: time.Now(), died: s.down,
		cancelled: make(chan struct{}, 1), terminated: make(chan struct{}), state: 'I', toldStandby: s.standby, toldReadOnly: s.readOnly, older: s.standby, statements: make(map[string]string),
	}
	s.sessions[one.pid] = one
	c.mu.Unlock()
	defer one.end()
	backend.Send(&pgproto3.AuthenticationOk{})
	for _, p := range [][2]string{
		{"server_version", "17.0"}, {"client_encoding", "UTF8"}, {"standard_conforming_strings", "on"}, {"integer_datetimes", "on"},
		{"DateStyle", "ISO, MDY"}, {"TimeZone", "UTC"}, {"default_transaction_read_only", onOff(one.toldReadOnly)}, {"in_hot_standby", onOff(one.toldStandby)},
	} {
		backend.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	key := binary.BigEndian.AppendUint32(nil, one.key)
	backend.Send(&pgproto3.BackendKeyData{ProcessID: one.pid, SecretKey: key})
	for one.ready() {
		if !one.command() {
			return
		}
	}
}

// end takes the session off the books. What it hasn't committed is gone.
func (s *session) end() {
	c := s.server.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.server.sessions[s.pid] == s {
		delete(s.server.sessions, s.pid)
	}
}

// ready tells the client that the session waits for a command.
func (s *session) ready() bool {
	c := s.server.cluster
	c.mu.Lock()
	standby, readOnly := s.server.standby, s.server.readOnly
	s.idle = true
	select {
	case <-s.cancelled: // a request that came too late
	default:
	}
	c.mu.Unlock()
	if s.toldStandby && !standby {
		s.toldStandby = false
		s.backend.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: "off"})
	}
	if s.toldReadOnly != readOnly {
		s.toldReadOnly = readOnly
		s.backend.Send(&pgproto3.ParameterStatus{Name: "default_transaction_read_only", Value: onOff(readOnly)})
	}
	s.backend.Send(&pgproto3.ReadyForQuery{TxStatus: s.state})
	err := s.backend.Flush()
	s.conn.link.answered()
	return err == nil
}

// begin says that the session is at a command.
func (s *session) begin() bool {
	if !s.server.goesOn() {
		return false
	}
	c := s.server.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s.idle = false
	select {
	case <-s.died:
		return false
	case <-s.terminated:
		return false
	default:
		return true
	}
}

// command reads messages up to the one after which the session is ready again. False: it is over.
func (s *session) command() bool {
	for {
		m, err := s.backend.Receive()
		if err != nil || !s.begin() {
			return false
		}
		if s.failed {
			if _, ok := m.(*pgproto3.Sync); ok {
				s.failed = false
				return true
			}
			if _, ok := m.(*pgproto3.Terminate); ok {
				return false
			}
			continue
		}
		query, simple := m.(*pgproto3.Query)
		s.conn.link.question(simple && asksStatus(query.String))
		over := false
		switch m := m.(type) {
		case *pgproto3.Query:
			over = true
			err = s.run(m.String, nil, true)
		case *pgproto3.Parse:
			err = s.parse(m.Name, m.Query)
		case *pgproto3.Describe:
			s.describe(m)
		case *pgproto3.Bind:
			err = s.bind(m)
		case *pgproto3.Execute:
			err = s.run(s.bound.text, s.bound.args, false)
		case *pgproto3.Close:
			if m.ObjectType == 'S' {
				delete(s.statements, m.Name)
			}
			s.backend.Send(&pgproto3.CloseComplete{})
		case *pgproto3.Sync:
			return true
		case *pgproto3.Flush:
			if s.backend.Flush() != nil {
				return false
			}
		case *pgproto3.Terminate:
			return false
		default:
			s.server.strange("message %T", m)
			return false
		}
		switch err := err.(type) {
		case nil:
		case *sqlError:
			s.backend.Send(s.server.errorResponse("ERROR", err.code, err.text))
			s.failed = !over
			if s.state == 'T' {
				s.state = 'E'
			}
		default:
			if err == ended {
				s.backend.Send(s.server.fatal("57P01"))
				_ = s.backend.Flush()
			}
			return false
		}
		if over {
			return true
		}
	}
}

// terminate is what pg_terminate_backend does.
func (s *session) terminate(code string) {
	c := s.server.cluster
	c.mu.Lock()
	idle := s.idle
	select {
	case <-s.terminated:
		c.mu.Unlock()
		return
	default:
		close(s.terminated)
	}
	c.mu.Unlock()
	if idle {
		b, _ := s.server.fatal(code).Encode(nil)
		_, _ = s.wire.Write(b)
		_ = s.wire.Close()
	}
}

// takes lets time pass in a statement, until it is over, or cancelled, or the session has to end.
func (s *session) takes(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	var err error
	select {
	case <-t.C:
	case <-s.cancelled:
		err = cancelled
	case <-s.terminated:
		err = ended
	case <-s.died:
		return gone
	}
	if !s.server.goesOn() {
		return gone
	}
	return err
}

func (s *server) fatal(code string) *pgproto3.ErrorResponse {
	text := map[string]string{
		"57P01": "terminating connection due to administrator command", "57P03": "the database system is shutting down",
		"53300": "sorry, too many clients already",
	}[code]
	return s.errorResponse("FATAL", code, text)
}

// errorResponse has its severity in the server's language. One that has another than English is so old that it says it in no other way.
func (s *server) errorResponse(severity, code, text string) *pgproto3.ErrorResponse {
	r := &pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: text}
	if s.language != "" {
		r.SeverityUnlocalized = ""
		r.Severity = map[string]string{"ERROR": "ОШИБКА", "FATAL": "ВАЖНО"}[severity]
	}
	return r
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
