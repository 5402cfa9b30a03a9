// Quickstart: a small bank on a pool of five connections, run by forty clients at once.
//
// It starts a throwaway PostgreSQL of its own. Against a database of yours only one word changes: the driver's name in
// sql.Open.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

const (
	accounts  = 10
	clients   = 40
	transfers = 25 // by each client
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	start := time.Now()
	server, err := pgtest.New()
	if err != nil {
		return err
	}
	defer server.Close()
	say("PostgreSQL is up on %s after %v.", server.Addr(), time.Since(start).Round(time.Millisecond))

	dsn := server.DSN() + "&pool_size=5&max_overflow=3&pool_name=bank"
	say("sql.Open(%q, %q)", "managedpg", dsn)
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		return err
	}
	defer db.Close()

	ctx := context.Background()
	if _, err := db.ExecContext(ctx, `CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)`); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `INSERT INTO account SELECT id, 100 FROM generate_series(1, $1) id`, accounts); err != nil {
		return err
	}

	say("%d clients make %d transfers each between %d accounts ...", clients, transfers, accounts)
	start = time.Now()
	errs := make(chan error, clients)
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for range transfers {
				if err := transfer(ctx, db); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		return err
	}
	took := time.Since(start)

	var sum int
	if err := db.QueryRowContext(ctx, `SELECT sum(balance) FROM account`).Scan(&sum); err != nil {
		return err
	}
	say("%d transfers in %v, %.0f a second; the sum is still %d.", clients*transfers, took.Round(time.Millisecond),
		float64(clients*transfers)/took.Seconds(), sum)

	say("\nWhat the pool says (managedpg.Stats()):\n")
	for _, s := range managedpg.Stats() {
		fmt.Print(s)
	}
	return nil
}

// transfer moves some money between two accounts, in the order of their ids so that transfers don't deadlock.
func transfer(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	from := 1 + rand.IntN(accounts-1)
	to := from + 1 + rand.IntN(accounts-from)
	amount := rand.IntN(21) - 10
	if _, err := tx.ExecContext(ctx, `UPDATE account SET balance = balance - $1 WHERE id = $2`, amount, from); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE account SET balance = balance + $1 WHERE id = $2`, amount, to); err != nil {
		return err
	}
	return tx.Commit()
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }
