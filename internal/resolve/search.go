package resolve

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/closed"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// Outcome is what became of a transaction.
type Outcome int

// Outcomes.
const (
	Unknown Outcome = iota
	Committed
	Aborted // rolled back, or never arrived
)

// Outcome asks the server, for as long as ctx lasts, life if that ends first, or nobody can tell any more. Unknown comes with an error that
// says why; endpoint is the server's name in it.
func (c *Commit) Outcome(ctx, life context.Context, pool Pool, endpoint string) (Outcome, error) {
	s := &search{Commit: c, pool: pool, life: life, endpoint: endpoint, passed: make(map[any]bool), began: clock.Now()}
	defer s.close()
	return s.run(ctx)
}

// search is a search for the outcome.
type search struct {
	*Commit
	pool     Pool
	life     context.Context // the pool's
	endpoint string
	passed   map[any]bool // keys of connections that can't tell
	fresh    *conn        // of our own, opened when no older one was to be had
	why      string       // what stood in the way last
	began    time.Duration

	terminated bool // the session was, see terminate
	confirmed  bool // by the synchronous standbys
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
	askAgain       = time.Millisecond
	askSlowest     = 100 * time.Millisecond
	askLimit       = 3 * time.Second // of a dial, or of a question over a connection of our own
	olderLimit     = 5 * time.Second // of a question over an older one, which is not to be had again
	terminateAfter = 100 * time.Millisecond
	silentLimit    = time.Second // how long there may be nobody to ask, or one attempt if that takes longer
)

func (s *search) run(ctx context.Context) (Outcome, error) {
	heard := clock.Now() // when somebody last could be asked
	for wait := askAgain; ; wait = min(2*wait, askSlowest) {
		found, asked := s.round(ctx)
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
			return Unknown, s.unresolved(nil)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return Unknown, s.unresolved(ctx.Err())
		case <-s.life.Done():
			timer.Stop()
			return Unknown, s.unresolved(closed.Err)
		case <-timer.C:
		}
	}
}

func (s *search) unresolved(err error) error {
	what := fmt.Sprintf("managedpg: outcome of transaction %d on %s not found out: %s", s.XID, s.endpoint, s.why)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return errors.New(what)
}

// round asks everybody who is to be had: the older connections, and one of our own. It says whether anybody answered.
func (s *search) round(ctx context.Context) (found finding, anybody bool) {
	for {
		var lent *Lent
		busy := false
		if ctx.Err() == nil {
			lent, busy = s.pool.Older(ctx, s.at, s.passed)
		}
		if lent == nil {
			found, answered := s.askFresh(ctx)
			if found == passOn && busy {
				s.why += "; the older connections are in use"
				return nothingYet, true
			}
			return found, anybody || answered
		}
		c := &conn{Lent: *lent, older: true}
		found, err := s.question(ctx, c)
		if err == nil {
			anybody = true
		}
		if err != nil || found == passOn {
			s.passed[c.Key] = true
		}
		c.giveBack()
		switch {
		case err != nil, found == passOn:
		case found != foundUnconfirmed:
			return found, anybody
		case s.confirm(ctx) != nil || !s.confirmed:
			return nothingYet, anybody
		}
	}
}

// askFresh asks over a connection that was opened for it.
func (s *search) askFresh(ctx context.Context) (found finding, answered bool) {
	if err := s.open(ctx); err != nil {
		if s.why == "" || ctx.Err() == nil {
			s.why = "no connection that is older than the COMMIT is left, and no new one to be had: " + err.Error()
		}
		return nothingYet, false
	}
	found, err := s.question(ctx, s.fresh)
	if err != nil {
		if s.why == "" || ctx.Err() == nil {
			s.why = "the server doesn't answer: " + err.Error()
		}
		s.close()
		return nothingYet, false
	}
	return found, true
}

// question asks a connection once. An error means that it didn't answer.
func (s *search) question(ctx context.Context, c *conn) (finding, error) {
	status := fmt.Sprintf(s.session.asksStatus, s.XID)
	row, err := s.ask(ctx, c, "SELECT "+status+asksIdentity+asksStart)
	future := sqlstate.Of(err) == sqlstate.InvalidParameter
	if future {
		row, err = s.ask(ctx, c, "SELECT ''"+asksIdentity+asksStart)
	}
	if err != nil || len(row) != 7 {
		if base.Severity(err) == "ERROR" || err == nil {
			s.why = fmt.Sprintf("the server doesn't say: %v", err)
			return passOn, nil
		}
		return passOn, err
	}
	var it Session
	it.read(row[1:])
	direct := it.pid != 0 && it.pid == c.PID
	switch {
	case !it.sameServer(s.session):
		s.why = fmt.Sprintf("it was on timeline %s of system %s, now there is timeline %s of %s", s.session.timeline, s.session.systemID,
			it.timeline, it.systemID)
		return passOn, nil
	case future && direct:
		return foundAborted, nil
	case row[0] == "aborted":
		return foundAborted, nil
	case row[0] == "in progress":
		s.why = "it is still in progress"
		return nothingYet, s.terminate(ctx, c)
	case row[0] != "committed":
		s.why = "the server no longer knows it"
		return passOn, nil
	}
	// It says committed.
	if err := s.pool.Fenced(it.primary()); err != nil {
		s.why = "the server has committed it, but is fenced, so those that go on without it may not have it: " + err.Error()
		return passOn, nil
	}
	switch started, _ := strconv.ParseInt(row[5], 10, 64); {
	case !c.older || !direct || started == 0 || started >= s.clock:
		s.why = "the server says committed, but no connection that is older than the COMMIT and leads straight there is left to " +
			"show that it means this transaction: after a crash the id may be another's"
		return passOn, nil
	case strings.TrimSpace(row[6]) != "" && !s.confirmed:
		return foundUnconfirmed, nil
	default:
		return foundCommitted, nil
	}
}

// confirm waits until a commit that is on this server is where its synchronous standbys have it, as COMMIT itself would
// have: by a commit of our own, which comes behind it in the WAL. That is over a connection of our own, as it may not be
// answered; the older one is asked again afterwards.
func (s *search) confirm(ctx context.Context) error {
	s.why = "committed on this server, but its synchronous standbys have not confirmed it"
	if err := s.open(ctx); err != nil {
		return err
	}
	row, err := s.ask(ctx, s.fresh, "SELECT ''"+asksIdentity)
	if err == nil {
		var it Session
		it.read(row[1:])
		if !it.sameServer(s.session) {
			return nil
		}
		s.fresh.unsure.Store(false)
		_, err = s.ask(ctx, s.fresh, "SELECT pg_catalog.pg_logical_emit_message(true, 'managedpg', '')::text")
		s.confirmed = err == nil && !s.fresh.unsure.Load()
	}
	if err != nil && base.Severity(err) != "ERROR" {
		s.close()
	}
	return err
}

// terminate ends the session that the COMMIT never reached, once it has been waiting for a while: a server may not learn for
// hours that a connection is gone, and keeps its locks until then. One that has begun to commit is left alone.
func (s *search) terminate(ctx context.Context, c *conn) error {
	if clock.Now()-s.began < terminateAfter || s.terminated {
		return nil
	}
	s.terminated = true
	_, err := s.ask(ctx, c, fmt.Sprintf(`SELECT coalesce(bool_or(pg_catalog.pg_terminate_backend(pid)), false)::text
		FROM pg_catalog.pg_stat_activity
		WHERE pid = %d AND backend_xid::text = '%d' AND state LIKE 'idle in transaction%%'`, s.session.pid, uint32(s.XID)))
	if base.Severity(err) == "ERROR" {
		return nil // not allowed
	}
	return err
}
