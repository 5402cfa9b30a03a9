// Switchover: eight clients write to a primary with a standby, while an operator has the two change roles. The pool is paused
// meanwhile: no client sees an error, they only wait. It prints how long, and counts every row afterwards.
//
// It starts throwaway PostgreSQL servers of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

const clients = 8

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	servers, err := pgtest.Replicated()
	if err != nil {
		return err
	}
	defer servers.Close()
	if err := servers.A.Exec("CREATE TABLE payment (id text PRIMARY KEY)"); err != nil {
		return err
	}
	fmt.Printf("A on %s is the primary, B on %s its standby. %d clients write a payment each 5 ms.\n", servers.A.Addr(), servers.B.Addr(), clients)
	managedpg.SetLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))
	cfg, err := managedpg.ParseDSN(servers.A.DSN() + "&pool_name=payments&pool_size=8&failover_urls=" + url.QueryEscape(servers.B.DSN()))
	if err != nil {
		return err
	}
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	pool, _ := managedpg.PoolOf(db)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var work sync.WaitGroup
	var mu sync.Mutex
	var written, failed int
	var took []time.Duration // by calls that were made during the switchover
	var began time.Time
	for client := range clients {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				start := time.Now()
				_, err := db.Exec("INSERT INTO payment VALUES ($1)", fmt.Sprintf("%d-%d", client, n))
				mu.Lock()
				if err == nil {
					written++
				} else {
					failed++
					fmt.Printf("client %d: %v\n", client, err)
				}
				if !began.IsZero() && time.Since(start) > 100*time.Millisecond {
					took = append(took, time.Since(start))
				}
				mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	time.Sleep(500 * time.Millisecond)

	mu.Lock()
	began = time.Now()
	mu.Unlock()
	step := func(what string, do func() error) error {
		err := do()
		fmt.Printf("%6.0f ms  %s\n", float64(time.Since(began))/float64(time.Millisecond), what)
		return err
	}
	err = errors.Join(
		step("pool.Pause: all connections were given back, the clients wait", func() error { return pool.Pause(ctx) }),
		step("A is stopped; B has all that it had", servers.A.Stop),
		step("B is promoted", servers.B.Promote),
		step("pool.Resume", func() error { pool.Resume(); return nil }),
	)
	time.Sleep(500 * time.Millisecond)
	stop()
	work.Wait()
	if err != nil {
		return err
	}
	rows, err := servers.B.QueryString("SELECT count(*) FROM payment")
	if err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Printf("\n%d payments were written, %s are on B; %d calls failed.\n", written, rows, failed)
	if len(took) > 0 {
		fmt.Printf("%d calls waited for the switchover, the longest for %v.\n", len(took), took[len(took)-1].Round(time.Millisecond))
	}
	if failed > 0 || fmt.Sprint(written) != rows {
		return errors.New("that should not be")
	}
	return nil
}
