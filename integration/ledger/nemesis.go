package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// fault is something that goes wrong, and is mended before the next one.
type fault struct {
	kind   string
	weight int
	do     func(s *servers, random *rand.Rand) error
	// resolvable says that the server and other connections of a pool survive it, so that a COMMIT in doubt can be
	// found out about.
	resolvable bool
}

const failbackKind = "failback"

var faults = []*fault{
	{"kill -9 and promotion", 3, kill, false},
	{failbackKind, 2, failback, false},
	{"freeze", 1, freeze, false},
	{"freeze of the standby", 1, freezeStandby, false},
	{"restart", 1, restart, false},
	{"terminate all sessions", 1, terminateAll, false},
	{"terminate a session", 2, terminateOne, true},
	{"reset before COMMIT arrives", 4, lose(isCommit, true), true},
	{"reset after COMMIT", 4, lose(isCommit, false), true},
	{"reset before a statement arrives", 3, lose(isWrite, true), true},
	{"reset after a statement", 3, lose(isWrite, false), true},
	{"black hole", 1, blackHole, false},
	{"pause", 1, pause, false},
	{"name server away", 1, nameServerAway, false},
	{"new connections refused", 1, refuseNew, false},
	{"a full server", 1, full, false},
	{"role flips", 1, flipRole, false},
	{"idle timeouts", 1, idleTimeouts, false},
}

// moment is how long a fault lasts that lasts.
func moment(random *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(random.Int64N(int64(most-least)))
}

func kill(s *servers, _ *rand.Rand) error {
	if err := s.first().Kill(); err != nil {
		return err
	}
	if err := s.promote(); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return s.rejoin()
}

// failback makes the first server the primary again, which clients prefer.
func failback(s *servers, _ *rand.Rand) error {
	if err := s.first().Stop(); err != nil {
		return err
	}
	if err := s.promote(); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	return s.rejoin()
}

func freeze(s *servers, random *rand.Rand) error {
	if err := s.first().Freeze(); err != nil {
		return err
	}
	time.Sleep(moment(random, 200*time.Millisecond, 3*time.Second))
	return s.first().Thaw()
}

func freezeStandby(s *servers, random *rand.Rand) error {
	if err := s.second().Freeze(); err != nil {
		return err
	}
	time.Sleep(moment(random, 200*time.Millisecond, 2*time.Second))
	return s.second().Thaw()
}

func restart(s *servers, _ *rand.Rand) error {
	if err := s.first().Restart(); err != nil {
		return err
	}
	return s.replicate()
}

func terminateAll(s *servers, _ *rand.Rand) error {
	_, err := s.first().TerminateBackends()
	return err
}

func terminateOne(s *servers, _ *rand.Rand) error {
	return s.first().Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND application_name <> 'pgtest' AND state <> 'idle' LIMIT 1`)
}

// lose resets a connection right before or after a statement has run.
func lose(on func(pgtest.Message) bool, before bool) func(*servers, *rand.Rand) error {
	return func(s *servers, _ *rand.Rand) error {
		s.first().proxy.Arm(pgtest.Fault{On: on, Do: pgtest.Reset, Before: before})
		select {
		case <-s.first().proxy.Fired():
		case <-time.After(5 * time.Second):
			s.first().proxy.Arm(pgtest.Fault{On: func(pgtest.Message) bool { return false }, Do: pgtest.Reset})
			return errNobody
		}
		return nil
	}
}

var errNobody = errors.New("nobody sent what was to be lost for 5s")

func runs(m pgtest.Message) bool { return m.Type == 'Q' || m.Type == 'E' }

func isCommit(m pgtest.Message) bool { return runs(m) && strings.EqualFold(m.Text, "commit") }
func isWrite(m pgtest.Message) bool {
	return runs(m) && (strings.HasPrefix(m.Text, "INSERT") || strings.HasPrefix(m.Text, "UPDATE"))
}

func blackHole(s *servers, random *rand.Rand) error {
	s.first().relay.hold()
	time.Sleep(moment(random, 200*time.Millisecond, 3*time.Second))
	s.first().relay.resume(true)
	return nil
}

func pause(s *servers, random *rand.Rand) error {
	s.first().relay.hold()
	time.Sleep(moment(random, 50*time.Millisecond, 2*time.Second))
	s.first().relay.resume(false)
	return nil
}

// needsNew makes the pool want new connections while a fault lasts: some of its sessions end.
func needsNew(s *servers, random *rand.Rand) error {
	for range 3 {
		if err := terminateOne(s, random); err != nil {
			return err
		}
		time.Sleep(moment(random, 50*time.Millisecond, 500*time.Millisecond))
	}
	return nil
}

func nameServerAway(s *servers, random *rand.Rand) error {
	s.zone.away.Store(true)
	defer s.zone.away.Store(false)
	return needsNew(s, random)
}

func refuseNew(s *servers, random *rand.Rand) error {
	s.first().relay.refuse(true)
	defer s.first().relay.refuse(false)
	return needsNew(s, random)
}

// full takes all places that the server has, past the proxies; a superuser's few stay.
func full(s *servers, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var taken []*pgx.Conn
	defer func() {
		for _, c := range taken {
			_ = c.Close(context.Background())
		}
	}()
	for range maxConnections {
		c, err := pgx.Connect(ctx, s.first().DSN())
		if sqlState(err) == "53300" {
			break
		}
		if err != nil {
			return err
		}
		taken = append(taken, c)
	}
	// No place is left to ask from, so one of the sessions that took them does.
	for range 3 {
		_, err := taken[0].Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND application_name <> 'pgtest' AND state <> 'idle' AND pid <> pg_backend_pid() LIMIT 1`)
		if err != nil {
			return err
		}
		time.Sleep(moment(random, 50*time.Millisecond, 500*time.Millisecond))
	}
	return nil
}

func sqlState(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

// flipRole lets the primary say for a while that its transactions are read-only.
func flipRole(s *servers, random *rand.Rand) error {
	return s.withSettings(moment(random, 100*time.Millisecond, time.Second), "default_transaction_read_only = on")
}

// idleTimeouts ends sessions that wait for their next command for a moment too long.
func idleTimeouts(s *servers, random *rand.Rand) error {
	return s.withSettings(moment(random, 200*time.Millisecond, 2*time.Second),
		"idle_session_timeout = '10ms'", "idle_in_transaction_session_timeout = '4ms'")
}

// nemesis picks faults at random, one after the other.
type nemesis struct {
	*history
	servers *servers
	random  *rand.Rand
	only    string // faults whose name has this in it
	verbose bool
	strict  bool // a driver that doesn't recover ends the run
}

// run goes on until a time, or until so many faults if most > 0.
func (n *nemesis) run(ctx context.Context, until time.Duration, most int) error {
	for done := 0; ctx.Err() == nil && n.now() < until && (most == 0 || done < most); done++ {
		pause := moment(n.random, 50*time.Millisecond, 500*time.Millisecond)
		f := n.pick()
		if f.kind == failbackKind && n.servers.primary == 0 {
			f = faults[0] // there is nothing to return from yet
		}
		if err := n.recovered(ctx); err != nil && n.strict {
			return fmt.Errorf("before %s: %w", f.kind, err)
		}
		time.Sleep(pause)
		e := event{Kind: f.kind, Start: n.now()}
		n.fault(e)
		at := len(n.events) - 1
		err := f.do(n.servers, n.random)
		n.mu.Lock()
		n.events[at].End = n.now()
		n.mu.Unlock()
		if n.verbose {
			fmt.Fprintf(os.Stderr, "%d. %s, %v to %v\n", done+1, f.kind, e.Start.Round(time.Millisecond), n.now().Round(time.Millisecond))
		}
		if err != nil && (n.strict || !errors.Is(err, errNobody)) {
			return fmt.Errorf("%s at %v: %w", f.kind, e.Start, err)
		}
	}
	return nil
}

// recovered waits until every worker has succeeded once more since the last fault: by then the pool has connections again,
// and what goes wrong next is the next fault's doing.
func (n *nemesis) recovered(ctx context.Context) error {
	since := n.now()
	return within(time.Minute, func() error {
		if ctx.Err() != nil {
			return nil
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		var seen [workers]bool
		for i := len(n.entries) - 1; i >= 0 && n.entries[i].End > since; i-- {
			if e := n.entries[i]; e.Told == ok && e.Start > since {
				seen[e.Worker] = true
			}
		}
		for worker, succeeded := range seen {
			if !succeeded {
				return fmt.Errorf("worker %d has not succeeded for a minute", worker)
			}
		}
		return nil
	})
}

func (n *nemesis) pick() *fault {
	var meant []*fault
	sum := 0
	for _, f := range faults {
		if strings.Contains(f.kind, n.only) {
			meant = append(meant, f)
			sum += f.weight
		}
	}
	at := n.random.IntN(sum)
	for _, f := range meant {
		if at -= f.weight; at < 0 {
			return f
		}
	}
	return meant[0]
}
