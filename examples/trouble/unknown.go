package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
)

// unknown: somebody ends the sessions of a program that is writing.
func unknown(ctx context.Context, s *scene) error {
	pg, err := server()
	if err != nil {
		return err
	}
	defer pg.Close()
	if err := pg.Exec("CREATE TABLE payment (id text PRIMARY KEY)"); err != nil {
		return err
	}
	db, pool, err := s.open(pg.DSN() + "&pool_name=payments&pool_size=4")
	if err != nil {
		return err
	}
	defer db.Close()
	var mu sync.Mutex
	var doubtful []string
	made := 0
	pay := func(ctx context.Context) error {
		mu.Lock()
		made++
		id := fmt.Sprintf("payment %d", made)
		mu.Unlock()
		_, err := db.ExecContext(ctx, "INSERT INTO payment SELECT $1 FROM pg_sleep(0.05)", id)
		if errors.Is(err, managedpg.ErrOutcomeUnknown) {
			mu.Lock()
			doubtful = append(doubtful, id)
			mu.Unlock()
		}
		return err
	}
	working, stop := context.WithCancel(ctx)
	defer s.work.Wait()
	defer stop()
	s.workers(working, 4, pay)
	if err := s.until(ctx, "payments are made", func() bool { return pool.Stats().TotalCheckins > 8 }); err != nil {
		return err
	}
	if _, err := pg.TerminateBackends("postgres"); err != nil {
		return err
	}
	if err := s.until(ctx, "a payment is of unknown outcome", func() bool { return pool.Stats().UnknownOutcomes > 0 }); err != nil {
		return err
	}
	s.say("  figures   unknown_outcomes %d, lost_transactions %d, closed_by %s",
		pool.Stats().UnknownOutcomes, pool.Stats().LostTransactions, pool.Stats().ClosedBy)
	pause(ctx, 100*time.Millisecond)
	mu.Lock()
	settle := slices.Clone(doubtful)
	mu.Unlock()
	s.say("\nEach has a key of its own, so it can be looked up, and made again if it isn't there:")
	for _, id := range settle {
		var n int
		if err := db.QueryRowContext(ctx, "SELECT count(*) FROM payment WHERE id = $1", id).Scan(&n); err != nil {
			return err
		}
		s.say("  %s: %d", id, n)
	}
	s.say("Remedy: see in the server's log who ended the sessions; keys of your own, or InTx with ResolveCommit, so that a program can settle it alone.")
	s.end(ctx)
	return nil
}
