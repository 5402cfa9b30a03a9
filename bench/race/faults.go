package main

import (
	"errors"
	"fmt"
	"time"
)

// fault is a way to lose a server, or connections.
type fault struct {
	name, about string
	start       func() (*pair, error)
	moves       bool // to the other server
	// strike does it, and says since when all could be well again, and what makes a server that hangs go on.
	strike func(*pair) (since time.Time, revive func() error, err error)
	watch  time.Duration     // how long the load goes on from then on
	mend   func(*pair) error // makes the servers fit for the next subject; nil: they are
}

// nothing hangs.
func nothing() error { return nil }

// faults are all of them; connections are reset for a time.
func faults(resetting time.Duration) []fault {
	return []fault{
		{
			name:  "kill and promotion",
			about: "kill -9 of the primary, then its synchronous standby is promoted; times are from when that accepts writes.",
			start: replicated, moves: true, watch: 2 * time.Second, mend: (*pair).Swap,
			strike: func(p *pair) (time.Time, func() error, error) {
				err := errors.Join(p.A.Kill(), p.B.Promote())
				return time.Now(), nothing, err
			},
		},
		{
			name:  "freeze",
			about: "SIGSTOP of the first of two independent servers, target_session_attrs=any.",
			start: independent, moves: true, watch: 7 * time.Second,
			strike: func(p *pair) (time.Time, func() error, error) { return time.Now(), p.A.Thaw, p.A.Freeze() },
		},
		{
			name:  "SYN black hole",
			about: "The first of two independent servers falls silent, and what is sent to its address is dropped, new connections too.",
			start: independent, moves: true, watch: 7 * time.Second,
			strike: func(p *pair) (since time.Time, revive func() error, err error) {
				since = time.Now()
				revive, err = p.A.BlackHole()
				return since, revive, err
			},
		},
		{
			name:  "all backends terminated",
			about: fmt.Sprintf("Every session of the primary is terminated, every %v for 2 s; times are from the last time.", every),
			start: replicated, watch: 2 * time.Second,
			strike: repeatedly(2*time.Second, func(p *pair) error { return p.A.Exec(terminate) }),
		},
		{
			name: fmt.Sprintf("%.0f s of resets", resetting.Seconds()),
			about: fmt.Sprintf("All connections are reset by proxies before the primary and its standby, every %v; times are from the "+
				"last time.", every),
			start: proxied, watch: 2 * time.Second,
			strike: repeatedly(resetting, func(p *pair) error {
				for _, before := range p.proxies {
					before.reset()
				}
				return nil
			}),
		},
	}
}

// every is how often what is done repeatedly is done.
const every = 200 * time.Millisecond

func repeatedly(length time.Duration, do func(*pair) error) func(*pair) (time.Time, func() error, error) {
	return func(p *pair) (last time.Time, _ func() error, err error) {
		for end := time.Now().Add(length); err == nil && time.Now().Before(end); time.Sleep(every) {
			last, err = time.Now(), do(p)
		}
		return last, nothing, err
	}
}

// terminate ends all sessions at once, and waits for none.
const terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

// race is one subject's run through a fault.
func (f *fault) race(p *pair, s *subject) (outcome, error) {
	if err := p.empty(); err != nil {
		return outcome{}, err
	}
	db, err := s.open(p.dsn())
	if err != nil {
		return outcome{}, err
	}
	defer db.Close()
	l := startLoad(db)
	if err := l.settle(); err != nil {
		return outcome{}, err
	}
	e := event{struck: time.Now()}
	since, revive, err := f.strike(p)
	if err != nil {
		return outcome{}, err
	}
	time.Sleep(f.watch)
	e.since, e.end = since, time.Now()
	close(l.stop)
	if err := revive(); err != nil {
		return outcome{}, err
	}
	calls := l.finish()
	if f.moves {
		e.to = p.B.Port()
	}
	found, err := f.inserted(p)
	if err != nil {
		return outcome{}, err
	}
	o, err := judge(calls, found, e)
	if err == nil && f.mend != nil {
		err = f.mend(p)
	}
	return o, err
}

// inserted reads the rows where they are when the fault is over.
func (f *fault) inserted(p *pair) (rows, error) {
	switch {
	case !p.Same:
		time.Sleep(200 * time.Millisecond) // what hung goes on
		return inserted(p.A, p.B)
	case f.moves:
		return inserted(p.B)
	default:
		return inserted(p.A)
	}
}
