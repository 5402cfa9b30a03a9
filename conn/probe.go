package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/internal/sqlstate"
)

// Server is what a connection tells of the server behind it. What it can't tell is left zero.
type Server struct {
	PID      uint32
	Standby  Answer // pg_is_in_recovery()
	ReadOnly Answer // transactions are read-only by default
	Timeline int64
	SystemID string
	// Where it is in the WAL, in bytes since its beginning: where a primary writes; what a standby has received and replayed, and how long
	// ago the last transaction was committed that it has replayed. Only a probe asks.
	Written, Received, Replayed int64
	ReplayAge                   time.Duration
	// Note says what this server can't tell, and what that costs.
	Note string
}

// Answer is a yes or a no, if there was one.
type Answer int8

// Answers.
const (
	NoAnswer Answer = iota
	No
	Yes
)

func answer(s string) Answer {
	switch s {
	case "on", "t", "true":
		return Yes
	case "off", "f", "false":
		return No
	default:
		return NoAnswer
	}
}

// questions are what a probe asks, the best first. A server that lacks the functions is asked the next one from then on.
// Timeline: on a server that isn't in recovery the name of the WAL file being written has it at once, while
// pg_control_checkpoint shows the old one until the checkpoint after a promotion. Default: a transaction that began in recovery
// stays read-only, and one that is promoted meanwhile would look like a primary that is.
// askIdentity is the best question without the place in the WAL.
const askIdentity = `SELECT pg_catalog.pg_backend_pid()::text, pg_catalog.pg_is_in_recovery()::text,
		pg_catalog.current_setting('default_transaction_read_only'),
		(SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN (SELECT timeline_id::text FROM pg_catalog.pg_control_checkpoint())
		ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int::text END`

var questions = []struct{ query, note string }{
	{askIdentity + `,
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0')::text END,
		pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_wal_lsn() END, '0/0')::text,
		extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::text`, ""},
	{askIdentity, ""},
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

// ask gets one answer, and remembers in from which question on the server has answers.
func ask(ctx context.Context, base driver.Conn, sock *socket, from *int) (Server, error) {
	// lib/pq reads on when its context has ended.
	if sock != nil {
		defer context.AfterFunc(ctx, func() { sock.closeFor(ctx.Err()) })()
	}
	again := true
	for {
		q := questions[*from]
		row, err := askOne(ctx, base, q.query)
		switch {
		case err == nil:
			s := Server{Note: q.note}
			s.read(row)
			return s, nil
		case ctx.Err() != nil:
			return Server{}, ctx.Err()
		case (severity(err) == "ERROR" && sqlstate.Lacks(sqlstate.Of(err)) || err == errProbeRow) && *from < len(questions)-1:
			*from++
		case err == errProbeRow:
			return Server{Note: q.note}, nil // whatever answers in this way, the bare driver would use it
		case severity(err) == "ERROR" && again: // a statement_timeout, a recovery conflict
			again = false
		default:
			return Server{}, err
		}
	}
}

// askOne runs a query of a single row of texts, by the simple protocol, which any pooler between passes on.
func askOne(ctx context.Context, base driver.Conn, query string) ([]string, error) {
	if c, ok := base.(*stdlib.Conn); ok {
		results, err := c.Conn().PgConn().Exec(ctx, query).ReadAll()
		if err != nil {
			return nil, err
		}
		if len(results) != 1 || len(results[0].Rows) != 1 {
			return nil, errProbeRow
		}
		var row []string
		for _, v := range results[0].Rows[0] {
			row = append(row, string(v))
		}
		return row, nil
	}
	f := featuresOf(base)
	rows, err := f.query(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); err != nil {
		if errors.Is(err, io.EOF) {
			err = errProbeRow
		}
		return nil, err
	}
	row := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case string:
			row[i] = v
		case []byte:
			row[i] = string(v)
		}
	}
	return row, nil
}

var errProbeRow = errors.New("managedpg: a probe's answer is not one row")

func (s *Server) read(row []string) {
	for i, v := range row {
		switch i {
		case 0:
			n, _ := strconv.ParseUint(v, 10, 32)
			s.PID = uint32(n)
		case 1:
			s.Standby = answer(v)
		case 2:
			s.ReadOnly = answer(v)
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

// identify finds out about the server behind a new connection from what that reported by itself, since PostgreSQL 14. A report of a
// standby may be that of a pooler between, which PgBouncer repeats long after the promotion, so that is asked for: one round trip for the
// connection opened. So is a timeline; and with lib/pq under TLS, where nobody shows us the reports, everything.
func (e *Endpoint) identify(ctx context.Context, base driver.Conn, sock *socket, role, timeline bool) (Server, error) {
	if e.watchSync == nil {
		return Server{}, nil // not a base driver of ours
	}
	var s Server
	known := true
	if c, ok := base.(*stdlib.Conn); ok {
		pg := c.Conn().PgConn()
		s.PID = pg.PID()
		s.Standby = answer(pg.ParameterStatus("in_hot_standby"))
		s.ReadOnly = answer(pg.ParameterStatus("default_transaction_read_only"))
	} else {
		s, known = sock.told()
	}
	if known && !timeline && (s.Standby == No || !role && s.Standby == NoAnswer) {
		return s, nil
	}
	from := firstBrief
	if timeline {
		from = firstIdentity
	}
	found, err := ask(ctx, base, sock, &from)
	if err != nil {
		return Server{}, err
	}
	if s.PID == 0 {
		s.PID = found.PID
	}
	s.Standby, s.ReadOnly, s.Timeline, s.SystemID = found.Standby, found.ReadOnly, found.Timeline, found.SystemID
	return s, nil
}

// Prober asks an endpoint what it is, or one of its addresses. It is for one goroutine at a time; Close may come from another.
type Prober struct {
	endpoint *Endpoint // the last that was asked
	keep     bool      // the connection, from one probe to the next
	from     int       // which question the server has answers from on

	mu     sync.Mutex // guards what follows
	kept   *probing   // nil while somebody has it
	out    *probing   // what was kept, while a probe or a LostError's Resolve has it
	closed bool
}

// probing is a prober's connection.
type probing struct {
	base   driver.Conn
	sock   *socket
	opened time.Duration
	pid    uint32 // of the session then
}

// NewProber makes a prober. One that keeps its connection sees a promotion within a round trip; one that doesn't costs the
// server no connection between probes.
func NewProber(keep bool) *Prober { return &Prober{keep: keep} }

// hookLimit is what a probe may take with the user's OptionBeforeConnect, which fetches credentials in its own time.
const hookLimit = time.Minute

// Probe is one round trip on a connection that it kept, or that it opens. A kept connection that fails is no evidence
// against the server: a new one is opened and asked then. Anew asks for that from the start.
func (p *Prober) Probe(ctx context.Context, e *Endpoint, anew bool) (Server, error) {
	p.endpoint = e
	if c := p.take(); c != nil && anew {
		end(c.base, c.sock)
	} else if c != nil {
		s, err := p.ask(ctx, c)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	base, d, err := e.connect(ctx, e.asking)
	if err != nil {
		return Server{}, err
	}
	return p.ask(ctx, &probing{base: base, sock: d.last, opened: now()})
}

func (p *Prober) ask(ctx context.Context, c *probing) (Server, error) {
	s, err := p.answer(ctx, c.base, c.sock)
	if c.pid == 0 {
		c.pid = s.PID
	}
	p.giveBack(c, err == nil && p.keep)
	return s, err
}

func (p *Prober) answer(ctx context.Context, base driver.Conn, sock *socket) (Server, error) {
	if p.endpoint.watchSync != nil {
		return ask(ctx, base, sock, &p.from)
	}
	pinger, ok := base.(driver.Pinger)
	if !ok {
		return Server{Note: "the driver has no Ping: that it connects is all that is known"}, nil
	}
	return Server{Note: "not a base driver of managedpg's: that it answers a ping is all that is known"}, pinger.Ping(ctx)
}

func (p *Prober) take() *probing {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.kept
	p.kept = nil
	if p.out == nil {
		p.out = c
	}
	return c
}

// giveBack keeps a connection if it is fit for that; of two it keeps the older, which can tell more, and closes the other.
func (p *Prober) giveBack(c *probing, fit bool) {
	p.mu.Lock()
	if p.out == c {
		p.out = nil
	}
	if fit && !p.closed && (p.kept == nil || c.opened < p.kept.opened) {
		c, p.kept = p.kept, c
	}
	p.mu.Unlock()
	if c != nil {
		end(c.base, c.sock)
	}
}

// Close closes the connection that is kept, and lets none be kept any more.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	if c := p.take(); c != nil {
		end(c.base, c.sock)
	}
}

// end closes a base connection that isn't the pool's.
func end(base driver.Conn, sock *socket) {
	ph := &physical{base: base, sock: sock}
	ph.pgx, _ = base.(*stdlib.Conn)
	ph.close(func() {})
}
