package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/jackc/pgx/v5"
)

// whoBlocksWhom is what the page says to ask the server.
const whoBlocksWhom = "SELECT waiting.pid, waiting.query, blocking.pid AS blocked_by, blocking.state, now() - blocking.xact_start AS in_transaction_for, " +
	"blocking.query AS its_last_query FROM pg_stat_activity waiting JOIN pg_stat_activity blocking ON blocking.pid = ANY (pg_blocking_pids(waiting.pid)) " +
	"ORDER BY blocking.xact_start;"

// timeouts: a transaction that somebody has left open holds a lock, a migration waits for that, and everybody waits behind the
// migration. The server is well.
func timeouts(ctx context.Context, s *scene) error {
	pg, err := server()
	if err != nil {
		return err
	}
	defer pg.Close()
	if err := pg.Exec("CREATE TABLE orders (id int)"); err != nil {
		return err
	}
	db, pool, err := s.open(pg.DSN() + "&pool_name=shop&pool_size=8&leak_threshold=1s")
	if err != nil {
		return err
	}
	defer db.Close()
	working, stop := context.WithCancel(ctx)
	defer s.work.Wait()
	defer stop()
	locked, release := make(chan error), make(chan bool)
	s.work.Go(func() { audit(ctx, db, locked, release) })
	defer close(release)
	if err := <-locked; err != nil {
		return err
	}
	s.work.Go(func() {
		if err := migrate(working, pg.DSN()); err != nil && working.Err() == nil {
			s.fail(err)
		}
	})
	s.workers(working, 6, func(ctx context.Context) error { return listOrders(ctx, db) })
	if err := s.until(ctx, "all calls time out", func() bool {
		return s.failures() >= 20 && pool.Stats().LeakedConnections > 0
	}); err != nil {
		return err
	}
	now, server := pool.Stats(), pool.CheckNow(ctx).Endpoints[0]
	s.say("\nThe server is %s and answers a probe in %v; %d calls were cancelled, and it confirmed %d: it is at work, or waits.",
		server.State, brief(server.ResponseTime), now.CancelsSent, now.CancelsConfirmed)
	for _, u := range pool.Usage() {
		if u.TimedOut > 0 {
			s.say("%d calls timed out at %s.", u.TimedOut, u.Caller)
		}
	}
	var waiting, blocking int
	var query, state, open, last string
	if err := db.QueryRowContext(ctx, whoBlocksWhom).Scan(&waiting, &query, &blocking, &state, &open, &last); err != nil {
		return err
	}
	s.say("Who blocks whom, asked as the page says: process %d (%s) waits for process %d, %s for %s.", waiting, query, blocking, state, open)
	for _, holder := range pool.Holders(8) {
		if int(holder.BackendPID) == blocking {
			s.say("That one is ours: %s", holder)
		}
	}
	s.say("Remedy: end that transaction; migrations with SET lock_timeout = '2s', which fail rather than stop everybody.")
	s.end(ctx)
	return nil
}

// migrate waits for as long as it takes, as a migration does that sets no lock_timeout.
func migrate(ctx context.Context, dsn string) error {
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	_, err = c.Exec(ctx, "ALTER TABLE orders ADD COLUMN note text")
	return err
}

// listOrders has a deadline, as all calls have in a service.
func listOrders(ctx context.Context, db *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var n int
	return db.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n)
}

// audit is wrong: it leaves its transaction open for as long as somebody takes to look at the result.
func audit(ctx context.Context, db *sql.DB, locked chan<- error, release <-chan bool) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		locked <- err
		return
	}
	defer tx.Rollback()
	var n int
	locked <- tx.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n)
	<-release
}
