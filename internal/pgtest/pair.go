package pgtest

import (
	"context"
	"errors"
)

// Pair is two servers: A, which is preferred, and B.
type Pair struct {
	A, B *Cluster
	// Same says that B replicates A, synchronously: what was acknowledged is on both, and is one row there.
	Same bool
}

// Independent are two servers that know nothing of each other. The pair must be closed.
func Independent(opts ...Option) (*Pair, error) {
	a, err := New(opts...)
	if err != nil {
		return nil, err
	}
	b, err := New(append(opts, OwnSystem())...)
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return &Pair{A: a, B: b}, nil
}

// Replicated are a primary and its synchronous standby. The pair must be closed.
func Replicated(opts ...Option) (*Pair, error) {
	a, err := New(opts...)
	if err != nil {
		return nil, err
	}
	b, err := a.Standby()
	if err != nil {
		return nil, errors.Join(err, a.Close())
	}
	p := &Pair{A: a, B: b, Same: true}
	if err := p.Synchronous(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Synchronous makes A wait for B before it acknowledges a commit. It is said with ALTER SYSTEM after B was made, so that B, once
// promoted, waits for nobody. Its processes take that in one after the other.
func (p *Pair) Synchronous() error {
	if err := p.A.Exec("ALTER SYSTEM SET synchronous_standby_names = '"+p.B.Name()+"'", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return poll(ctx, func() error {
		state, err := p.A.queryString(ctx, "SELECT sync_state FROM pg_stat_replication WHERE application_name = '"+p.B.Name()+"'")
		if err == nil && state != "sync" {
			err = p.A.errorf("%v is %q", p.B, state)
		}
		return err
	})
}

// Swap is for after B was promoted: A comes back as its synchronous standby, and they change names.
func (p *Pair) Swap() error {
	p.A, p.B = p.B, p.A
	if err := p.B.RejoinAsStandby(p.A); err != nil {
		return err
	}
	return p.Synchronous()
}

// Close closes both.
func (p *Pair) Close() error { return errors.Join(p.A.Close(), p.B.Close()) }
