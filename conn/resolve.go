package conn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// What became of a COMMIT that was sent and not answered can be asked of the server, if one knows the transaction's id and
// asks the same server on the same timeline. A crash in between can lose an id that was given out, and give it to somebody
// else: so "committed" is believed of a server that has certainly not crashed since, "aborted" always.

// Outcome is what became of a transaction.
type Outcome int

// Outcomes.
const (
	OutcomeUnknown Outcome = iota
	Committed
	Aborted // rolled back, or never arrived
)

// String is the outcome in a word.
func (o Outcome) String() string {
	switch o {
	case Committed:
		return "committed"
	case Aborted:
		return "aborted"
	default:
		return "unknown"
	}
}

// doubt is a transaction whose COMMIT is about to be sent, and what is needed to ask for its outcome.
type doubt struct {
	pool  *Pool
	lost  *physical // the connection that it was sent over
	xid   uint64
	self  *self
	clock int64         // the server's, in microseconds, before COMMIT
	at    time.Duration // ours
	why   string        // it can't be asked for, if not empty
}

// self is what a session says of itself, and how to ask it for its transaction's id.
type self struct {
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

// know asks a session what it is, once, before the first transaction whose outcome may be asked for.
func (ph *physical) know(ctx context.Context) error {
	if ph.self != nil && !ph.self.recovering {
		return nil
	}
	if !ph.base.Askable() {
		ph.self = &self{}
		return nil
	}
	for _, f := range xactFunctions {
		row, err := ph.base.Ask(ctx, "SELECT "+f.xid+"::text"+asksIdentity)
		if err == nil && len(row) == 5 {
			ph.self = &self{asksXID: f.xid, asksStatus: f.status}
			ph.self.read(row[1:])
			return nil
		}
		if err != nil && base.Severity(err) != "ERROR" || ctx.Err() != nil {
			return err
		}
	}
	ph.self = &self{}
	return nil
}

func (s *self) read(row []string) {
	pid, _ := strconv.ParseUint(row[0], 10, 32)
	s.pid, s.recovering, s.systemID, s.timeline = uint32(pid), base.AnswerOf(row[1]) == base.Yes, row[2], row[3]
}

// sameServer says that two sessions are on one server and one timeline, where something can be committed.
func (s *self) sameServer(o *self) bool {
	return s.systemID != "" && s.timeline != "" && !s.recovering && !o.recovering &&
		s.systemID == o.systemID && s.timeline == o.timeline
}

// ask asks for the id of the session's transaction, right before COMMIT. Without an error there may still be none.
func (d *doubt) ask(ctx context.Context, p *Pool, ph *physical) error {
	*d = doubt{pool: p, lost: ph, self: ph.self, at: clock.Now()}
	if ph.self == nil || ph.self.asksXID == "" {
		d.why = "the server has no way to tell"
		return nil
	}
	row, err := ph.base.Ask(ctx, "SELECT "+ph.self.asksXID+"::text"+asksClock)
	if err != nil {
		return err
	}
	d.xid, _ = strconv.ParseUint(row[0], 10, 64)
	d.clock, _ = strconv.ParseInt(row[2], 10, 64)
	switch {
	case d.xid == 0:
		d.why = "it has written nothing, and so has no id to ask for; a NOTIFY may have been sent"
	case row[1] != strconv.FormatUint(uint64(ph.self.pid), 10):
		d.why = "the connection goes through a pooler, so which server it was is not known"
	case d.clock == 0:
		d.why = "the server doesn't tell the time"
	}
	return nil
}

// explain adds to an error what is needed to ask for the outcome.
func (d *doubt) explain(err error) {
	var lost *LostError
	if errors.As(err, &lost) && lost.Kind == ErrOutcomeUnknown {
		lost.XID, lost.doubt = d.xid, d
	}
}

var errNoXID = errors.New("managedpg: not asked: the transaction's id is not known, which InTx finds out with ResolveCommit unless it is READ ONLY")

// Resolve asks the server what became of the transaction. It may take a few round trips, and waits while the transaction is
// still in progress, or nobody can tell yet, as long as ctx lasts. OutcomeUnknown comes with an error that says why;
// the other outcomes are certain, and come without one.
//
// Committed takes another connection of the pool to the same server, opened before the COMMIT was sent and alive since: only
// that shows that the server has not crashed meanwhile, after which the id may be somebody else's. If the server waits for
// synchronous standbys, so does Resolve. Aborted is found by any connection to the same server on the same timeline.
func (e *LostError) Resolve(ctx context.Context) (Outcome, error) {
	switch {
	case e.Kind == ErrTxLost:
		return Aborted, nil
	case e.doubt == nil:
		return OutcomeUnknown, errNoXID
	case e.doubt.why != "":
		return OutcomeUnknown, fmt.Errorf("managedpg: not asked: %s", e.doubt.why)
	}
	r := &resolving{doubt: e.doubt, passed: map[any]bool{e.doubt.lost: true}, began: clock.Now()}
	defer r.end()
	return r.run(ctx)
}

// resolving is a search for the outcome.
type resolving struct {
	*doubt
	passed  map[any]bool // connections that can't tell: *physical, *probing
	fresh   *witness     // of our own, opened when no older one was to be had
	why     string       // what stood in the way last
	began   time.Duration
	prodded bool

	confirmed bool // by the synchronous standbys
}

// finding is what one question found.
type finding int

const (
	nothingYet       finding = iota // ask again
	passOn                          // this one can't tell
	foundUnconfirmed                // committed, if its synchronous standbys have it
	foundCommitted
	foundAborted
)

// The questions follow each other ever more slowly.
const (
	askAgain    = time.Millisecond
	askSlowest  = 100 * time.Millisecond
	askLimit    = 3 * time.Second // of a dial, or of a question over a connection of our own
	olderLimit  = 5 * time.Second // of a question over an older one, which is not to be had again
	prodAfter   = 100 * time.Millisecond
	silentLimit = time.Second // how long there may be nobody to ask, or one attempt if that takes longer
)

func (r *resolving) run(ctx context.Context) (Outcome, error) {
	heard := clock.Now() // when somebody last could be asked
	for wait := askAgain; ; wait = min(2*wait, askSlowest) {
		found, asked := r.round(ctx)
		switch found {
		case foundCommitted:
			return Committed, nil
		case foundAborted:
			return Aborted, nil
		}
		if asked {
			heard = clock.Now()
		}
		if found == passOn || clock.Now()-heard > silentLimit {
			return OutcomeUnknown, r.unresolved(nil)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return OutcomeUnknown, r.unresolved(ctx.Err())
		case <-r.pool.ctx.Done():
			timer.Stop()
			return OutcomeUnknown, r.unresolved(ErrClosed)
		case <-timer.C:
		}
	}
}

func (r *resolving) unresolved(err error) error {
	what := fmt.Sprintf("managedpg: outcome of transaction %d on %s not found out: %s", r.xid, r.lost.endpoint.Name, r.why)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return errors.New(what)
}

// round asks everybody who is to be had: the older connections, and one of our own. It says whether anybody answered.
func (r *resolving) round(ctx context.Context) (found finding, asked bool) {
	for {
		var w *witness
		busy := false
		if ctx.Err() == nil {
			w, busy = r.pool.witness(ctx, r.doubt, r.passed)
		}
		if w == nil {
			found, answered := r.askFresh(ctx)
			if found == passOn && busy {
				r.why += "; the older connections are in use"
				return nothingYet, true
			}
			return found, asked || answered
		}
		found, err := r.question(ctx, w)
		if err == nil {
			asked = true
		}
		if err != nil || found == passOn {
			r.passed[w.key] = true
		}
		w.done()
		switch {
		case err != nil, found == passOn:
		case found != foundUnconfirmed:
			return found, asked
		case r.confirm(ctx) != nil || !r.confirmed:
			return nothingYet, asked
		}
	}
}

// askFresh asks over a connection that was opened for it.
func (r *resolving) askFresh(ctx context.Context) (found finding, asked bool) {
	if err := r.open(ctx); err != nil {
		if r.why == "" || ctx.Err() == nil {
			r.why = "no connection that is older than the COMMIT is left, and no new one to be had: " + err.Error()
		}
		return nothingYet, false
	}
	found, err := r.question(ctx, r.fresh)
	if err != nil {
		if r.why == "" || ctx.Err() == nil {
			r.why = "the server doesn't answer: " + err.Error()
		}
		r.end()
		return nothingYet, false
	}
	return found, true
}

// open opens a connection of our own.
func (r *resolving) open(ctx context.Context) error {
	if r.fresh != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	w, err := openWitness(ctx, r.lost.endpoint)
	if err == nil {
		r.fresh = w
	}
	return err
}

// end closes the connection that was opened.
func (r *resolving) end() {
	if r.fresh != nil {
		r.fresh.Close(func() {})
		r.fresh = nil
	}
}

// question asks a witness once. An error means that it didn't answer.
func (r *resolving) question(ctx context.Context, w *witness) (finding, error) {
	status := fmt.Sprintf(r.self.asksStatus, r.xid)
	row, err := r.ask(ctx, w, "SELECT "+status+asksIdentity+asksStart)
	future := sqlstate.Of(err) == sqlstate.InvalidParameter
	if future {
		row, err = r.ask(ctx, w, "SELECT ''"+asksIdentity+asksStart)
	}
	if err != nil || len(row) != 7 {
		if base.Severity(err) == "ERROR" || err == nil {
			r.why = fmt.Sprintf("the server doesn't say: %v", err)
			return passOn, nil
		}
		return passOn, err
	}
	var it self
	it.read(row[1:])
	direct := it.pid != 0 && it.pid == w.pid
	switch started, _ := strconv.ParseInt(row[5], 10, 64); {
	case !it.sameServer(r.self):
		r.why = fmt.Sprintf("it was on timeline %s of system %s, now there is timeline %s of %s", r.self.timeline, r.self.systemID,
			it.timeline, it.systemID)
		return passOn, nil
	case future && direct:
		return foundAborted, nil
	case row[0] == "aborted":
		return foundAborted, nil
	case row[0] == "in progress":
		r.why = "it is still in progress"
		return nothingYet, r.prod(ctx, w)
	case row[0] != "committed":
		r.why = "the server no longer knows it"
		return passOn, nil
	case !w.older || !direct || started == 0 || started >= r.clock:
		r.why = "the server says committed, but no connection that is older than the COMMIT and leads straight there is left to " +
			"show that it means this transaction: after a crash the id may be another's"
		return passOn, nil
	case strings.TrimSpace(row[6]) != "" && !r.confirmed:
		return foundUnconfirmed, nil
	default:
		return foundCommitted, nil
	}
}

// confirm waits until a commit that is on this server is where its synchronous standbys have it, as COMMIT itself would
// have: by a commit of our own, which comes behind it in the WAL. That is over a connection of our own, as it may not be
// answered; the older one is asked again afterwards.
func (r *resolving) confirm(ctx context.Context) error {
	r.why = "committed on this server, but its synchronous standbys have not confirmed it"
	if err := r.open(ctx); err != nil {
		return err
	}
	row, err := r.ask(ctx, r.fresh, "SELECT ''"+asksIdentity)
	if err == nil {
		var it self
		it.read(row[1:])
		if !it.sameServer(r.self) {
			return nil
		}
		r.fresh.unsure.Store(false)
		_, err = r.ask(ctx, r.fresh, "SELECT pg_catalog.pg_logical_emit_message(true, 'managedpg', '')::text")
		r.confirmed = err == nil && !r.fresh.unsure.Load()
	}
	if err != nil && base.Severity(err) != "ERROR" {
		r.end()
	}
	return err
}

// prod ends the session that the COMMIT never reached, once it has been waiting for a while: a server may not learn for
// hours that a connection is gone, and keeps its locks until then. One that has begun to commit is left alone.
func (r *resolving) prod(ctx context.Context, w *witness) error {
	if clock.Now()-r.began < prodAfter || r.prodded {
		return nil
	}
	r.prodded = true
	_, err := r.ask(ctx, w, fmt.Sprintf(`SELECT coalesce(bool_or(pg_catalog.pg_terminate_backend(pid)), false)::text
		FROM pg_catalog.pg_stat_activity
		WHERE pid = %d AND backend_xid::text = '%d' AND state LIKE 'idle in transaction%%'`, r.self.pid, uint32(r.xid)))
	if base.Severity(err) == "ERROR" {
		return nil // not allowed
	}
	return err
}
