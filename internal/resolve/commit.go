package resolve

import (
	"context"
	"strconv"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
)

// Session is what a session says of itself, and how to ask it for its transaction's id.
type Session struct {
	pid        uint32
	recovering bool
	systemID   string
	timeline   string
	asksXID    string // "" where there is no such thing
	asksStatus string
}

// The functions that tell a transaction's id and what became of it: since PostgreSQL 13, and since 10.
var xactFunctions = []struct{ xid, status string }{
	{"pg_catalog.pg_current_xact_id_if_assigned()", "pg_catalog.pg_xact_status('%d'::pg_catalog.xid8)"},
	{"pg_catalog.txid_current_if_assigned()", "pg_catalog.txid_status(%d)"},
}

const (
	// asksIdentity has to be asked before BEGIN: a server that refuses an answer would end the transaction with it.
	asksIdentity = `, pg_catalog.pg_backend_pid()::text, pg_catalog.pg_is_in_recovery()::text,
		(SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_catalog.pg_control_checkpoint())
		ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END`
	asksClock = `, pg_catalog.pg_backend_pid()::text, (extract(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint::text`
	asksStart = `, (SELECT (extract(epoch FROM backend_start) * 1000000)::bigint::text FROM pg_catalog.pg_stat_activity
		WHERE pid = pg_catalog.pg_backend_pid()), pg_catalog.current_setting('synchronous_standby_names')`
)

// Identify asks a session what it is, once, before the first transaction whose outcome may be asked for. Known is what it has said
// before, nil if it hasn't been asked.
func Identify(ctx context.Context, c base.Conn, known *Session) (*Session, error) {
	if known != nil && !known.recovering {
		return known, nil
	}
	if !c.Askable() {
		return &Session{}, nil
	}
	for _, f := range xactFunctions {
		row, err := c.Ask(ctx, "SELECT "+f.xid+"::text"+asksIdentity)
		if err == nil && len(row) == 5 {
			s := &Session{asksXID: f.xid, asksStatus: f.status}
			s.read(row[1:])
			return s, nil
		}
		if err != nil && base.Severity(err) != "ERROR" || ctx.Err() != nil {
			return known, err
		}
	}
	return &Session{}, nil
}

func (s *Session) read(row []string) {
	pid, _ := strconv.ParseUint(row[0], 10, 32)
	s.pid, s.recovering, s.systemID, s.timeline = uint32(pid), base.AnswerOf(row[1]) == base.Yes, row[2], row[3]
}

// sameServer says that two sessions are on one server and one timeline, where something can be committed.
func (s *Session) sameServer(o *Session) bool {
	return s.systemID != "" && s.timeline != "" && !s.recovering && !o.recovering &&
		s.systemID == o.systemID && s.timeline == o.timeline
}

// primary is what is known of the session's server, which is no standby.
func (s *Session) primary() base.Server {
	timeline, _ := strconv.ParseInt(s.timeline, 16, 64) // as in the name of a WAL file
	return base.Server{Standby: base.No, SystemID: s.systemID, Timeline: timeline}
}

// Commit is a COMMIT that is about to be sent, and what is needed to ask for its outcome.
type Commit struct {
	// XID is the transaction's id; 0: it has none, or it isn't known.
	XID uint64
	// Why it can't be asked for, "" if it can.
	Why string

	session *Session
	clock   int64         // the server's, in microseconds, before COMMIT
	at      time.Duration // ours
}

// Prepare asks for the id of the session's transaction, right before COMMIT. Session is what Identify said of the session.
func Prepare(ctx context.Context, c base.Conn, session *Session) (*Commit, error) {
	commit := &Commit{session: session, at: clock.Now()}
	if session == nil || session.asksXID == "" {
		commit.Why = "the server has no way to tell"
		return commit, nil
	}
	row, err := c.Ask(ctx, "SELECT "+session.asksXID+"::text"+asksClock)
	if err != nil {
		return nil, err
	}
	commit.XID, _ = strconv.ParseUint(row[0], 10, 64)
	commit.clock, _ = strconv.ParseInt(row[2], 10, 64)
	switch {
	case commit.XID == 0:
		commit.Why = "it has written nothing, and so has no id to ask for; a NOTIFY may have been sent"
	case row[1] != strconv.FormatUint(uint64(session.pid), 10):
		commit.Why = "the connection goes through a pooler, so which server it was is not known"
	case commit.clock == 0:
		commit.Why = "the server doesn't tell the time"
	}
	return commit, nil
}
