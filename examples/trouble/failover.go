package main

import (
	"context"
	"net/url"
	"sync/atomic"
	"time"

	health "github.com/managedpg/managedpg/failover"
)

// slowFailover: the primary dies, and whoever is to promote its standby takes its time.
func slowFailover(ctx context.Context, s *scene) error {
	a, err := server()
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := a.Standby()
	if err != nil {
		return err
	}
	defer b.Close()
	if err := a.Exec("CREATE TABLE orders (id int)"); err != nil {
		return err
	}
	db, pool, err := s.open(a.DSN() + "&pool_name=shop&pool_size=4&failover_urls=" + url.QueryEscape(b.DSN()))
	if err != nil {
		return err
	}
	defer db.Close()
	var last atomic.Int64 // when an order was written
	working, stop := context.WithCancel(ctx)
	defer s.work.Wait()
	defer stop()
	s.workers(working, 4, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		if _, err := db.ExecContext(ctx, "INSERT INTO orders VALUES (1)"); err != nil {
			return err
		}
		last.Store(time.Now().UnixNano())
		pause(ctx, 5*time.Millisecond)
		return nil
	})
	if err := s.until(ctx, "orders are written", func() bool { return last.Load() > 0 }); err != nil {
		return err
	}
	if err := s.until(ctx, "the standby was seen", func() bool {
		seen := pool.Health().Endpoints
		return len(seen) == 2 && seen[1].State == health.Up
	}); err != nil {
		return err
	}
	if err := a.Kill(); err != nil {
		return err
	}
	died := time.Now()
	pause(ctx, 2*time.Second) // the cluster manager waits for its ttl
	if err := b.Promote(); err != nil {
		return err
	}
	promoted := time.Now()
	if err := s.until(ctx, "orders are written again", func() bool { return last.Load() > promoted.UnixNano() }); err != nil {
		return err
	}
	written := time.Now()
	s.say("\nPromoting it took %v, and the first order after that %v.", brief(promoted.Sub(died)), brief(written.Sub(promoted)))
	s.say("The last failover, by Pool.Failover(): %v without an endpoint.", brief(pool.Failover().History[0].Duration))
	s.say("Remedy: a shorter ttl of the cluster manager's; the pool has waited for it.")
	s.end(ctx)
	return nil
}
