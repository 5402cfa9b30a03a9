package main

import (
	"context"
	"database/sql"
	"time"
)

// exhausted: many short look-ups share four connections with a function that calls another service within its transaction. Those who
// fail are the look-ups; the culprit is the other one.
func exhausted(ctx context.Context, s *scene) error {
	pg, err := server()
	if err != nil {
		return err
	}
	defer pg.Close()
	db, pool, err := s.open(pg.DSN() + "&pool_name=shop&pool_size=4&max_overflow=0&pool_timeout=1s")
	if err != nil {
		return err
	}
	defer db.Close()
	working, stop := context.WithCancel(ctx)
	defer s.work.Wait()
	defer stop()
	s.workers(working, 20, func(ctx context.Context) error { return lookUp(ctx, db) })
	s.workers(working, 6, func(ctx context.Context) error { return bill(ctx, db) })

	if err := s.until(ctx, "checkouts time out", func() bool { return s.failures() >= 10 }); err != nil {
		return err
	}
	s.say("\nWho uses the pool, by Pool.Usage():")
	for i, u := range pool.Usage() {
		if i < 3 {
			s.say("  %s (%d checkouts)", u, u.Checkouts)
		}
	}
	s.say("Remedy: call the service first, then begin the transaction.")
	s.end(ctx)
	return nil
}

func lookUp(ctx context.Context, db *sql.DB) error {
	var one int
	defer pause(ctx, 5*time.Millisecond)
	return db.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// bill is wrong: it keeps its connection while it waits for somebody else.
func bill(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SELECT 1"); err != nil {
		return err
	}
	callPaymentService(ctx)
	return tx.Commit()
}

func callPaymentService(ctx context.Context) { pause(ctx, 900*time.Millisecond) }
