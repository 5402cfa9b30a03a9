package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// climb: nothing caps the pool, and a function forgets its rows, and with them its connection, now and then.
func climb(ctx context.Context, s *scene) error {
	pg, err := server(pgtest.Conf("max_connections=30"))
	if err != nil {
		return err
	}
	defer pg.Close()
	db, pool, err := s.open(pg.DSN() + "&pool_name=shop&leak_threshold=300ms")
	if err != nil {
		return err
	}
	defer db.Close()
	var forgotten []*sql.Rows // what no one would keep, so that the example can end
	defer func() {
		for _, rows := range forgotten {
			_ = rows.Close()
		}
	}()
	working, stop := context.WithCancel(ctx)
	defer s.work.Wait()
	defer stop()
	s.workers(working, 2, func(ctx context.Context) error { return lookUp(ctx, db) })
	s.workers(working, 1, func(ctx context.Context) error {
		pause(ctx, 60*time.Millisecond)
		rows, err := firstMatch(context.Background(), db)
		if err == nil {
			forgotten = append(forgotten, rows)
		}
		return err
	})
	next := int64(5)
	if err := s.until(ctx, "the server refuses more", func() bool {
		now := pool.Stats()
		if now.Open >= next {
			s.say("  figures   open %d, checked_out %d, leaked_connections %d", now.Open, now.CheckedOut, now.LeakedConnections)
			next += 10
		}
		return s.failures() > 0 && now.LeakedConnections > 0
	}); err != nil {
		return err
	}
	s.say("Remedy: close the rows in the line that the log names; and a cap, pool_size, so that a leak costs this program and not the server.")
	s.end(ctx)
	return nil
}

// firstMatch is wrong: it reads one row of many and leaves the rest open.
func firstMatch(ctx context.Context, db *sql.DB) (*sql.Rows, error) {
	rows, err := db.QueryContext(ctx, "SELECT generate_series(1, 1000)")
	if err == nil {
		rows.Next()
	}
	return rows, err
}
