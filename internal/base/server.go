package base

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/managedpg/managedpg/internal/sqlstate"
)

// Server is what a connection tells of the server behind it. What it can't tell is left zero.
type Server struct {
	PID      uint32
	Standby  Answer // pg_is_in_recovery()
	ReadOnly Answer // transactions are read-only by default
	Timeline int64
	SystemID string
}

// Probed is what a probe tells of a server.
type Probed struct {
	Server
	// Where it is in the WAL, in bytes since its beginning: where a primary writes; what a standby has received and replayed, and how long
	// ago the last transaction was committed that it has replayed.
	Written, Received, Replayed int64
	ReplayAge                   time.Duration
	// Note says what this server can't tell, and what that costs.
	Note string
}

// LooksLike says that another answer is as that of the same server in the same role.
func (s Server) LooksLike(o Server) bool {
	return s.Standby == o.Standby && s.ReadOnly == o.ReadOnly && s.Timeline == o.Timeline && s.SystemID == o.SystemID
}

// Answer is a yes or a no, if there was one.
type Answer int8

// Answers.
const (
	NoAnswer Answer = iota
	No
	Yes
)

// AnswerOf reads what PostgreSQL says of a boolean.
func AnswerOf(s string) Answer {
	switch s {
	case "on", "t", "true":
		return Yes
	case "off", "f", "false":
		return No
	default:
		return NoAnswer
	}
}

// identity is the best question without the place in the WAL.
//
// questions are what a probe asks, the best first. A server that lacks the functions is asked the next one from then on.
// Timeline: on a server that isn't in recovery the name of the WAL file being written has it at once, while
// pg_control_checkpoint shows the old one until the checkpoint after a promotion. Default: a transaction that began in recovery
// stays read-only, and one that is promoted meanwhile would look like a primary that is.
const identity = `SELECT pg_catalog.pg_backend_pid()::text, pg_catalog.pg_is_in_recovery()::text,
		pg_catalog.current_setting('default_transaction_read_only'),
		(SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_catalog.pg_control_checkpoint())
		ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int::text END`

var questions = []struct{ query, note string }{
	{identity + `,
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0')::text END,
		pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_wal_lsn() END, '0/0')::text,
		extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::text`, ""},
	{identity, ""},
	{`SELECT pg_catalog.pg_backend_pid()::text, pg_catalog.pg_is_in_recovery()::text,
		pg_catalog.current_setting('default_transaction_read_only')`,
		"the server doesn't tell its timeline and system identifier: it can't be fenced"},
	{`SELECT '0', '', current_setting('transaction_read_only')`,
		"the server doesn't tell whether it is a standby, nor its timeline: its role is that of its transactions, and it can't be fenced"},
	{`SELECT '0'`,
		"the server tells neither its role nor its timeline: it counts as fit for any target_session_attrs, and can't be fenced"},
}

// What a dial asks for which fencing needs to know the timeline, and what lib/pq has to ask for otherwise.
const (
	firstIdentity = 1
	firstBrief    = 2
)

// Question asks c what the server is: the question of that number, or the first after it to which the server has an answer, whose number
// is left there.
func Question(ctx context.Context, c Conn, from *int) (Probed, error) {
	// lib/pq reads on when its context has ended.
	defer context.AfterFunc(ctx, func() { c.Socket().CloseFor(ctx.Err()) })()
	again := true
	for {
		q := questions[*from]
		row, err := c.Ask(ctx, q.query)
		switch {
		case err == nil:
			s := Probed{Note: q.note}
			s.read(row)
			return s, nil
		case ctx.Err() != nil:
			return Probed{}, ctx.Err()
		case (Severity(err) == "ERROR" && sqlstate.Lacks(sqlstate.Of(err)) || err == ErrNoRow) && *from < len(questions)-1:
			*from++
		case err == ErrNoRow:
			return Probed{Note: q.note}, nil // whatever answers in this way, the bare driver would use it
		case Severity(err) == "ERROR" && again: // a statement_timeout, a recovery conflict
			again = false
		default:
			return Probed{}, err
		}
	}
}

// ErrNoRow is what Conn.Ask says of an answer that is not one row.
var ErrNoRow = errors.New("managedpg: a probe's answer is not one row")

func (s *Probed) read(row []string) {
	for i, v := range row {
		switch i {
		case 0:
			n, _ := strconv.ParseUint(v, 10, 32)
			s.PID = uint32(n)
		case 1:
			s.Standby = AnswerOf(v)
		case 2:
			s.ReadOnly = AnswerOf(v)
		case 3:
			s.SystemID = v
		case 4:
			s.Timeline, _ = strconv.ParseInt(v, 10, 64)
		case 5:
			s.Received, _ = strconv.ParseInt(v, 10, 64)
		case 6:
			at, _ := strconv.ParseInt(v, 10, 64)
			if s.Standby == Yes {
				s.Replayed = at
			} else {
				s.Written = at
			}
		case 7:
			age, _ := strconv.ParseFloat(v, 64)
			s.ReplayAge = time.Duration(age * float64(time.Second))
		}
	}
}

// needsAsking says that what a server has reported of itself in the startup, since PostgreSQL 14, doesn't do. A report of a
// standby may be that of a pooler between, which PgBouncer repeats long after the promotion, so that is asked for: one round trip for the
// connection opened. So is a timeline.
func needsAsking(told Server, role, timeline bool) bool {
	return timeline || told.Standby != No && (role || told.Standby != NoAnswer)
}

// askIdentity asks for what told doesn't say.
func askIdentity(ctx context.Context, c Conn, told Server, timeline bool) (Server, error) {
	from := firstBrief
	if timeline {
		from = firstIdentity
	}
	found, err := Question(ctx, c, &from)
	if err != nil {
		return Server{}, err
	}
	if told.PID == 0 {
		told.PID = found.PID
	}
	told.Standby, told.ReadOnly, told.Timeline, told.SystemID = found.Standby, found.ReadOnly, found.Timeline, found.SystemID
	return told, nil
}
