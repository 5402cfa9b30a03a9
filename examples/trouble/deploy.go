package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats"
)

// deploy: the new version has lost pool_size from its DSN. So database/sql governs the pool, with its default of two connections that it
// keeps, and nearly every call opens one.
func deploy(ctx context.Context, s *scene) error {
	pg, err := server()
	if err != nil {
		return err
	}
	defer pg.Close()
	s.say("%-36s %10s  %-10s %-10s %-10s %s", "", "a call", "waiting", "dialling", "holding", "opened for each checkout")
	before, err := version(ctx, s, pg, "version 1, pool_size=16", "&pool_name=version1&pool_size=16", false)
	if err != nil {
		return err
	}
	after, err := version(ctx, s, pg, "version 2, without pool_size", "&pool_name=version2", s.hold)
	if err != nil {
		return err
	}
	if dials(after) <= dials(before) {
		return fmt.Errorf("version 2 opened %.2f connections for each checkout, version 1 %.2f", dials(after), dials(before))
	}
	s.say("\nThe time went into dialling: closed_by is %s.", after.ClosedBy)
	s.say("Remedy: pool_size=16 in the DSN again, or db.SetMaxIdleConns(16).")
	return nil
}

// version runs a program for a while, and prints where the time of its calls went.
func version(ctx context.Context, s *scene, pg *pgtest.Cluster, name, keys string, hold bool) (stats.Snapshot, error) {
	db, pool, err := s.open(pg.DSN() + keys)
	if err != nil {
		return stats.Snapshot{}, err
	}
	defer db.Close()
	var mu sync.Mutex
	var took []time.Duration
	working, stop := context.WithCancel(ctx)
	defer s.work.Wait()
	defer stop()
	s.workers(working, 16, func(ctx context.Context) error {
		began := time.Now()
		if _, err := db.ExecContext(ctx, "SELECT pg_sleep(0.001)"); err != nil {
			return err
		}
		mu.Lock()
		took = append(took, time.Since(began))
		mu.Unlock()
		pause(ctx, time.Millisecond)
		return nil
	})
	if err := s.until(ctx, "there were 1000 calls", func() bool { return pool.Stats().TotalCheckins >= 1000 }); err != nil {
		return stats.Snapshot{}, err
	}
	mu.Lock()
	slices.Sort(took)
	median := took[len(took)/2]
	mu.Unlock()
	now := pool.Stats()
	waiting := "unknown"
	if now.GovernedBy == stats.GovernedByDriver {
		waiting = brief(now.CheckoutTime.P50)
	}
	s.say("%-36s %10s  %-10s %-10s %-10s %.2f", name, brief(median), waiting, brief(now.CreateTime.P50), brief(now.UseTime.P50), dials(now))
	if hold {
		s.end(ctx)
	}
	return now, nil
}

func dials(s stats.Snapshot) float64 {
	return float64(s.TotalConnectionsCreated) / float64(max(1, s.TotalCheckouts))
}

func brief(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000) }
