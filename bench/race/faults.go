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
	// strike does it, and says since when all could be well again.
	strike func(*pair) (since time.Time, err error)
	watch  time.Duration     // how long the load goes on from then on
	revive func(*pair) error // makes what hangs go on, before rows are counted; nil: nothing hangs
	mend   func(*pair) error // makes the servers fit for the next subject; nil: they are
}

// faults are all of them; connections are reset for a time.
func faults(resetting time.Duration) []fault {
	hole := func() error { return nil }
	return []fault{
		{
			name:  "kill and promotion",
			about: "kill -9 of the primary, then its synchronous standby is promoted; times are from when that accepts writes.",
			start: replicated, moves: true, watch: 2 * time.Second, mend: (*pair).swap,
			strike: func(p *pair) (time.Time, error) {
				err := errors.Join(p.a.Kill(), p.b.Promote())
				return time.Now(), err
			},
		},
		{
			name:  "freeze",
			about: "SIGSTOP of the first of two independent servers, target_session_attrs=any.",
			start: independent, moves: true, watch: 7 * time.Second,
			strike: func(p *pair) (time.Time, error) { return time.Now(), p.a.Freeze() },
			revive: func(p *pair) error { return p.a.Thaw() },
		},
		{
			name:  "SYN black hole",
			about: "The first of two independent servers falls silent, and what is sent to its address is dropped, new connections too.",
			start: independent, moves: true, watch: 7 * time.Second,
			strike: func(p *pair) (since time.Time, err error) {
				since = time.Now()
				hole, err = p.a.BlackHole()
				return since, err
			},
			revive: func(*pair) error { return hole() },
		},
		{
			name:  "all backends terminated",
			about: "pg_terminate_backend for every session of the primary, its standby as it was.",
			start: replicated, watch: 2 * time.Second,
			strike: func(p *pair) (since time.Time, err error) {
				since = time.Now()
				_, err = p.a.TerminateBackends()
				return since, err
			},
		},
		{
			name: fmt.Sprintf("%.0f s of resets", resetting.Seconds()),
			about: fmt.Sprintf("Every %v all connections are reset by proxies before the primary and its standby; times are from the "+
				"last reset.", resetEvery),
			start: proxied, watch: 2 * time.Second,
			strike: func(p *pair) (time.Time, error) {
				for end := time.Now().Add(resetting); time.Now().Before(end); time.Sleep(resetEvery) {
					for _, before := range p.proxies {
						before.reset()
					}
				}
				return time.Now(), nil
			},
		},
	}
}

const resetEvery = 200 * time.Millisecond

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
	if e.since, err = f.strike(p); err != nil {
		return outcome{}, err
	}
	time.Sleep(f.watch)
	e.end = time.Now()
	close(l.stop)
	if f.revive != nil {
		if err := f.revive(p); err != nil {
			return outcome{}, err
		}
	}
	calls := l.finish()
	if f.moves {
		e.to = p.b.Port()
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
	case !p.same:
		time.Sleep(200 * time.Millisecond) // what hung goes on
		return inserted(p.a, p.b)
	case f.moves:
		return inserted(p.b)
	default:
		return inserted(p.a)
	}
}
