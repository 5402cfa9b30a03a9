package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// sqlError is an error that leaves the session alive.
type sqlError struct{ code, text string }

func (e *sqlError) Error() string { return e.code + ": " + e.text }

const (
	typeText = 25
	typeInt8 = 20
)

// strange notes what the simulation doesn't know, which fails it.
func (s *server) strange(format string, args ...any) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	s.cluster.strange = append(s.cluster.strange, fmt.Sprintf(format, args...))
}

func (s *session) parse(name, text string) error {
	if s.state == 'E' && !endsTx(text) {
		return inFailed
	}
	s.statements[name] = text
	s.backend.Send(&pgproto3.ParseComplete{})
	return nil
}

func (s *session) describe(m *pgproto3.Describe) {
	text := s.bound.text
	if m.ObjectType == 'S' {
		text = s.statements[m.Name]
		p := &pgproto3.ParameterDescription{}
		for n := 1; strings.Contains(text, fmt.Sprintf("$%d", n)); n++ {
			p.ParameterOIDs = append(p.ParameterOIDs, typeInt8)
		}
		s.backend.Send(p)
	}
	if names := columns(text); names == nil {
		s.backend.Send(&pgproto3.NoData{})
	} else {
		s.backend.Send(described(names))
	}
}

func described(names []string) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{}
	for _, n := range names {
		d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte(n[:min(20, len(n))]), DataTypeOID: typeText, DataTypeSize: -1, TypeModifier: -1})
	}
	return d
}

func (s *session) bind(m *pgproto3.Bind) error {
	text, ok := s.statements[m.PreparedStatement]
	if !ok {
		return &sqlError{"26000", "prepared statement does not exist"}
	}
	s.bound = bound{text: text}
	for i, p := range m.Parameters {
		binaryFormat := len(m.ParameterFormatCodes) == 1 && m.ParameterFormatCodes[0] == 1 ||
			len(m.ParameterFormatCodes) > 1 && m.ParameterFormatCodes[i] == 1
		if binaryFormat && len(p) == 8 {
			s.bound.args = append(s.bound.args, strconv.FormatInt(int64(binary.BigEndian.Uint64(p)), 10))
		} else {
			s.bound.args = append(s.bound.args, string(p))
		}
	}
	s.backend.Send(&pgproto3.BindComplete{})
	return nil
}

var (
	inFailed   = &sqlError{"25P02", "current transaction is aborted, commands ignored until end of transaction block"}
	inReadOnly = &sqlError{"25006", "cannot execute INSERT in a read-only transaction"}
	diskFull   = &sqlError{"53100", "could not extend file: No space left on device"}
	whenAsked  = &sqlError{"57014", "canceling statement due to user request"}

	inserts = regexp.MustCompile(`^INSERT INTO entry VALUES \((\$1|\d+)\)$`)
	updates = regexp.MustCompile(`^UPDATE account SET balance = balance \+ \$1 WHERE id = \$2$`)
	counts  = regexp.MustCompile(`^SELECT count\(\*\) FROM entry WHERE id = (\$1|\d+)$`)
	sleeps  = regexp.MustCompile(`^SELECT pg_sleep\((\d+)\)$`) // in milliseconds here
)

func verb(text string) string {
	f := strings.Fields(strings.ToUpper(text))
	if len(f) == 0 || strings.HasPrefix(f[0], "--") {
		return ""
	}
	return strings.TrimRight(f[0], ";")
}

func endsTx(text string) bool {
	v := verb(text)
	return v == "COMMIT" || v == "ROLLBACK"
}

// run runs a statement, and sends what comes of it but for an error.
func (s *session) run(text string, args []string, simple bool) error {
	if verb(text) == "" {
		s.backend.Send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if s.state == 'E' && !endsTx(text) {
		return inFailed
	}
	s.outside(text)
	most := 2 * time.Millisecond
	if s.server.slow && asksStatus(text) {
		most = 2 * time.Second
	}
	if err := s.interrupted(s.takes(s.server.cluster.took(most))); err != nil {
		return err
	}
	tag, err := verb(text), error(nil)
	switch tag {
	case "BEGIN":
		s.state, s.tx = 'T', nil
		s.txReadOnly = s.readOnly || s.server.standby || s.server.readOnly || strings.Contains(strings.ToUpper(text), "READ ONLY")
	case "COMMIT", "ROLLBACK":
		t := s.tx
		if s.state == 'E' {
			tag = "ROLLBACK"
		}
		s.state, s.tx, s.txReadOnly = 'I', nil, false
		if t != nil && tag == "COMMIT" {
			err = s.commit(t)
		}
	case "SET":
		s.readOnly = s.readOnly || strings.Contains(text, "READ ONLY")
	case "DISCARD", "DEALLOCATE":
		if tag == "DISCARD" {
			s.readOnly = false
		}
		clear(s.statements)
		tag += " ALL"
	case "INSERT", "UPDATE":
		tag, err = s.write(text, args)
	case "SELECT":
		err = s.read(text, args, simple)
		tag = "SELECT 1"
	default:
		s.server.strange("statement %q", text)
		err = &sqlError{"0A000", "unknown here"}
	}
	if err == nil {
		s.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(tag)})
	}
	return err
}

// asksStatus says that a statement asks what became of a transaction.
func asksStatus(text string) bool { return strings.Contains(text, "pg_xact_status(") }

// outside notes a statement of the load's that was sent while the pool was paused, or to a server that it had fenced.
func (s *session) outside(text string) {
	me, c, sent := s.server, s.server.cluster, s.conn.in.sent
	c.mu.Lock()
	defer c.mu.Unlock()
	v := verb(text)
	writes := v == "INSERT" || v == "UPDATE"
	if writes && !s.older && !me.fenced.IsZero() && sent.After(me.fenced) {
		c.strange = append(c.strange, fmt.Sprintf("%s sent at %v to %s, which has been fenced since %v", text, sent, me.name, me.fenced))
	}
	if (writes || v == "BEGIN" || counts.MatchString(text)) && !c.paused.IsZero() && sent.After(c.paused) {
		c.strange = append(c.strange, fmt.Sprintf("%s sent at %v, while the pool has been paused since %v", text, sent, c.paused))
	}
}

// interrupted is what a statement is told that is cancelled.
func (s *session) interrupted(err error) error {
	if err == cancelled {
		return whenAsked
	}
	return err
}

func arg(in string, args []string) int64 {
	if n, ok := strings.CutPrefix(in, "$"); ok {
		i, _ := strconv.Atoi(n)
		in = args[i-1]
	}
	n, _ := strconv.ParseInt(in, 10, 64)
	return n
}

func (s *session) write(text string, args []string) (tag string, err error) {
	var w write
	if m := inserts.FindStringSubmatch(text); m != nil {
		w.row, tag = arg(m[1], args), "INSERT 0 1"
	} else if updates.MatchString(text) {
		w.amount, w.account, tag = arg("$1", args), arg("$2", args), "UPDATE 1"
	} else {
		s.server.strange("statement %q", text)
		return "", &sqlError{"0A000", "unknown here"}
	}
	s.conn.link.wrote = true
	c := s.server.cluster
	c.mu.Lock()
	switch me := s.server; {
	case me.standby, s.readOnly, s.txReadOnly, s.state != 'T' && me.readOnly:
		c.mu.Unlock()
		return "", inReadOnly
	case me.disk:
		c.mu.Unlock()
		return "", diskFull
	}
	t := s.tx
	if t == nil {
		t = &transaction{xid: s.server.nextXID}
		s.server.nextXID++
	}
	t.writes = append(t.writes, w)
	if s.state == 'T' {
		s.tx = t
	}
	c.mu.Unlock()
	if s.state == 'T' {
		return tag, nil
	}
	return tag, s.commit(t)
}

// commit commits here, and waits until the standbys have it.
func (s *session) commit(t *transaction) error {
	c, me := s.server.cluster, s.server
	c.mu.Lock()
	select {
	case <-s.died:
		c.mu.Unlock()
		return gone
	default:
	}
	me.pending = append(me.pending, t)
	c.mu.Unlock()
	wait := c.took(3 * time.Millisecond)
	for {
		err := s.takes(wait)
		if err == gone {
			return err
		}
		c.mu.Lock()
		if c.primary != me && err == nil {
			c.mu.Unlock()
			wait = time.Hour // nobody will ever confirm it
			continue
		}
		for i, p := range me.pending {
			if p == t {
				me.pending = append(me.pending[:i:i], me.pending[i+1:]...)
				me.committedLocked(t)
			}
		}
		c.mu.Unlock()
		if err == cancelled {
			s.backend.Send(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "01000",
				Message: "canceling wait for synchronous replication due to user request", Routine: "SyncRepWaitForLSN"})
			return nil
		}
		return err
	}
}

// columns are the expressions of a SELECT, nil for another statement.
func columns(text string) []string {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "SELECT ")
	if !ok {
		return nil
	}
	var all []string
	depth, from, quoted := 0, 0, false
	for i, r := range rest {
		switch {
		case r == '\'':
			quoted = !quoted
		case quoted:
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			all, from = append(all, rest[from:i]), i+1
		case depth == 0 && strings.HasPrefix(rest[i:], "CASE "):
			depth++
		case depth == 1 && strings.HasPrefix(rest[i:], " END"):
			depth--
		}
	}
	return append(all, rest[from:])
}

func (s *session) read(text string, args []string, simple bool) error {
	names := columns(text)
	var row [][]byte
	if m := sleeps.FindStringSubmatch(text); m != nil {
		if err := s.interrupted(s.takes(time.Duration(arg(m[1], args)) * time.Millisecond)); err != nil {
			return err
		}
		row = append(row, nil)
	} else if m := counts.FindStringSubmatch(text); m != nil {
		s.server.cluster.mu.Lock()
		row = append(row, []byte(strconv.Itoa(s.server.cluster.rows[arg(m[1], args)])))
		s.server.cluster.mu.Unlock()
	} else {
		if strings.Contains(text, "pg_logical_emit_message(true") {
			if err := s.commit(&transaction{}); err != nil {
				return err
			}
		}
		s.server.cluster.mu.Lock()
		for _, n := range names {
			v, err := s.valueLocked(n)
			if err != nil {
				s.server.cluster.mu.Unlock()
				if err == io.EOF {
					s.server.strange("expression %q", n)
					err = &sqlError{"0A000", "unknown here"}
				}
				return err
			}
			row = append(row, v)
		}
		s.server.cluster.mu.Unlock()
	}
	if simple {
		s.backend.Send(described(names))
	}
	s.backend.Send(&pgproto3.DataRow{Values: row})
	return nil
}

// valueLocked is that of an expression; io.EOF for one that isn't known.
func (s *session) valueLocked(of string) ([]byte, error) {
	of = strings.Join(strings.Fields(strings.ReplaceAll(of, "pg_catalog.", "")), " ")
	me := s.server
	has := func(part string) bool { return strings.Contains(of, part) }
	text := func(v any) ([]byte, error) { return []byte(fmt.Sprint(v)), nil }
	switch {
	case of == "''":
		return text("")
	case of == "pg_backend_pid()::text":
		return text(s.pid)
	case of == "pg_is_in_recovery()::text":
		return text(me.standby)
	case has("current_setting('default_transaction_read_only')"):
		return text(onOff(s.readOnly || me.readOnly))
	case has("current_setting('synchronous_standby_names')"):
		if len(me.cluster.servers) > 1 {
			return text("*")
		}
		return text("")
	case has("pg_control_system()"):
		return text("7000")
	case has("timeline_id"):
		if me.standby || !has("substr(") || has("::bit(32)") {
			return text(me.timeline)
		}
		return text(fmt.Sprintf("%08X", me.timeline))
	case has("pg_last_wal_receive_lsn"):
		if !me.standby {
			return nil, nil
		}
		return text(s.server.cluster.lsn)
	case has("pg_wal_lsn_diff"):
		return text(s.server.cluster.lsn)
	case has("pg_last_xact_replay_timestamp"):
		if !me.standby {
			return nil, nil
		}
		return text("0")
	case has("pg_current_xact_id_if_assigned()"):
		if s.tx == nil {
			return nil, nil
		}
		return text(s.tx.xid)
	case has("clock_timestamp()"):
		return text(time.Now().UnixMicro())
	case has("backend_start"):
		return text(s.began.UnixMicro())
	case has("pg_logical_emit_message"):
		return text("1")
	case has("pg_terminate_backend"):
		var pid uint32
		var xid uint64
		_, _ = fmt.Sscanf(of[strings.Index(of, "WHERE pid"):], "WHERE pid = %d AND backend_xid::text = '%d'", &pid, &xid)
		one := me.sessions[pid]
		if one == nil || !one.idle || one.tx == nil || one.tx.xid != xid {
			return text("false")
		}
		go one.terminate("57P01")
		return text("true")
	case has("pg_xact_status("):
		var xid uint64
		_, _ = fmt.Sscanf(of, "pg_xact_status('%d'", &xid)
		status, err := me.statusLocked(xid)
		me.cluster.log("%s says of transaction %d: %s%v", me.name, xid, status, err)
		return status, err
	default:
		return nil, io.EOF
	}
}

// statusLocked is what became of a transaction.
func (s *server) statusLocked(xid uint64) ([]byte, error) {
	if s.standby {
		return nil, &sqlError{"55000", "recovery is in progress"}
	}
	if xid >= s.nextXID {
		return nil, &sqlError{"22023", "transaction ID is in the future"}
	}
	if s.done[xid] {
		return []byte("committed"), nil
	}
	for _, t := range s.pending {
		if t.xid == xid {
			return []byte("in progress"), nil
		}
	}
	for _, one := range s.sessions {
		if one.tx != nil && one.tx.xid == xid {
			return []byte("in progress"), nil
		}
	}
	return []byte("aborted"), nil
}
