// Reads: a primary with two standbys, of which one stops replaying for a while. Clients read and write through one sql.DB; it prints which
// server answered.
//
// It starts throwaway PostgreSQL servers of its own.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func main() {
	log.SetFlags(0)
	managedpg.SetLogger(slog.New(slog.NewTextHandler(io.Discard, nil))) // what follows tells the same
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	a, err := pgtest.New()
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := a.Standby()
	if err != nil {
		return err
	}
	defer b.Close()
	c, err := a.Standby()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := a.Exec("CREATE TABLE visits AS SELECT 0 AS n"); err != nil {
		return err
	}
	for _, standby := range []*pgtest.Cluster{b, c} { // the first reads need the table
		for there := ""; there == ""; {
			if there, err = standby.QueryString("SELECT to_regclass('visits')"); err != nil {
				return err
			}
		}
	}
	names := map[int]string{a.Port(): "A (primary)", b.Port(): "B", c.Port(): "C"}

	dsn := fmt.Sprintf("postgres://postgres@%s,%s,%s/postgres?sslmode=disable&pool_size=6&pool_name=shop"+
		"&standby_reads=true&max_replication_lag=500ms&health_check_interval=100ms", a.Addr(), b.Addr(), c.Addr())
	fmt.Printf("sql.Open(%q, %q)\n\n", "managedpg", dsn)
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		return err
	}
	defer db.Close()

	show := func(what string) error {
		counts := make(map[string]int)
		var mu sync.Mutex
		var failed error
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for range 50 {
					var port int
					kind, c := "writes", ctx
					query := "UPDATE visits SET n = n + 1 RETURNING current_setting('port')::int"
					if i%4 > 0 {
						kind, c = "reads", managedpg.ReadOnly(ctx)
						query = "SELECT current_setting('port')::int FROM visits, pg_sleep(0.005)"
					}
					err := db.QueryRowContext(c, query).Scan(&port)
					mu.Lock()
					if err != nil {
						failed = err
					}
					counts[kind+" on "+names[port]]++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		fmt.Printf("%s: %v\n", what, counts)
		return failed
	}

	if err := show("Three servers      "); err != nil {
		return err
	}
	if err := b.Exec("SELECT pg_wal_replay_pause()"); err != nil {
		return err
	}
	lagging := func() bool {
		for _, p := range managedpg.Pools() {
			for _, e := range p.Health().Endpoints {
				if p.Name() == "shop/reads" && e.Lagging {
					return true
				}
			}
		}
		return false
	}
	for !lagging() {
		if _, err := db.ExecContext(ctx, "UPDATE visits SET n = n + 1"); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := show("B is behind        "); err != nil {
		return err
	}
	if err := b.Exec("SELECT pg_wal_replay_resume()"); err != nil {
		return err
	}
	for lagging() {
		time.Sleep(20 * time.Millisecond)
	}
	if err := show("B has caught up    "); err != nil {
		return err
	}
	if _, err := db.ExecContext(managedpg.ReadOnly(ctx), "UPDATE visits SET n = 0"); err == nil {
		return fmt.Errorf("a write went through as a read")
	} else {
		fmt.Println("\nA write with the context of a read:", err)
	}
	for _, s := range managedpg.Stats() {
		fmt.Printf("pool %-10s %4d checkouts, %d connections\n", s.Name, s.TotalCheckouts, s.Open)
	}
	return nil
}
