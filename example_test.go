package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
)

// A pool of five connections, and up to three more in a peak.
func Example() {
	db, err := sql.Open("managedpg", server()+"&pool_size=5&max_overflow=3")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	var sum int
	if err := db.QueryRow("SELECT $1::int + $2", 2, 3).Scan(&sum); err != nil {
		log.Fatal(err)
	}
	fmt.Println(sum)
	// Output: 5
}

// What an error means for the one who gets it.
func Example_errors() {
	db, err := sql.Open("managedpg", server())
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	_, err = db.Exec("SELECT 1/0")

	var pgErr *pgconn.PgError // with base_driver=pq: *pq.Error
	switch {
	case err == nil:
	case errors.Is(err, managedpg.ErrOutcomeUnknown):
		fmt.Println("it ran or it didn't: look")
	case errors.Is(err, managedpg.ErrTxLost):
		fmt.Println("rolled back for certain: again")
	case errors.Is(err, managedpg.ErrPoolTimeout), errors.Is(err, managedpg.ErrNoEndpoint):
		fmt.Println("nothing was sent: later")
	case errors.As(err, &pgErr):
		fmt.Println("the server says", pgErr.Code, pgErr.Message)
	}
	// Output: the server says 22012 division by zero
}

func ExampleStats() {
	db, err := sql.Open("managedpg", server()+"&pool_size=5&pool_name=stats-example")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if err := db.Ping(); err != nil {
		log.Fatal(err)
	}

	for _, s := range managedpg.Stats() { // fmt.Print(s) shows all of it as a table
		if s.Name == "stats-example" {
			fmt.Printf("%s: %d of %d in use, %d checkouts\n", s.Name, s.CheckedOut, s.Size, s.TotalCheckouts)
		}
	}
	// Output: stats-example: 0 of 5 in use, 1 checkouts
}

func ExamplePools() {
	db, err := sql.Open("managedpg", server()+"&pool_name=pools-example")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	for _, p := range managedpg.Pools() {
		if p.Name() == "pools-example" {
			fmt.Println(p.Name(), "is governed by", p.Stats().GovernedBy)
		}
	}
	// Output: pools-example is governed by database/sql
}

func ExamplePoolOf() {
	db, err := sql.Open("managedpg", server()+"&pool_size=2")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	pool, ok := managedpg.PoolOf(db)
	if !ok {
		log.Fatal("something wraps the driver: look among managedpg.Pools()")
	}
	h := pool.CheckNow(context.Background())
	fmt.Println("healthy:", h.Healthy)
	for _, e := range h.Endpoints {
		fmt.Println(e.State, e.Role)
	}
	// Output:
	// healthy: true
	// up read-write
}

// After a change that only new connections see, ALTER ROLE ... SET for one.
func ExamplePool_drain() {
	db, err := sql.Open("managedpg", server()+"&pool_size=2")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	pid := func() (pid int) {
		if err := db.QueryRow("SELECT pg_backend_pid()").Scan(&pid); err != nil {
			log.Fatal(err)
		}
		return pid
	}

	before := pid()
	pool, _ := managedpg.PoolOf(db)
	pool.Drain()
	fmt.Println("the same connection:", pid() == before)
	// Output: the same connection: false
}

// A Config never shows a password.
func ExampleParseDSN() {
	cfg, err := managedpg.ParseDSN("postgres://app:secret@db1,db2/shop?sslmode=verify-full&pool_size=10&leak_threshold=30s")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.PoolSize, cfg.LeakThreshold, cfg.TargetSessionAttrs)

	_, err = managedpg.ParseDSN("postgres://app:secret@db1/shop?pool_size=many")
	fmt.Println(err)
	_, err = managedpg.ParseDSN("postgres://app:secret@db1/shop?pool_max_conns=10")
	fmt.Println(err)
	// Output:
	// 10 30s read-write
	// managedpg: pool_size=many: want a whole number from 1 to 10000, or none (database/sql governs the pool)
	// managedpg: pool_max_conns is a key of pgxpool's; here it is pool_size and max_overflow
}

// What a DSN can't say: hooks, and pgx's own configuration.
func ExampleOpenDB() {
	cfg, err := managedpg.ParseDSN(server())
	if err != nil {
		log.Fatal(err)
	}
	cfg.PoolSize = 5
	cfg.OnLeak = func(r leak.Report) { log.Println("leak:", r) }
	cfg.OnFailover = func(e failover.Event) { log.Println(e.Kind, "to", e.To) }
	cfg.PgxConfig = func(c *pgx.ConnConfig) error {
		c.RuntimeParams["application_name"] = "shop"
		return nil
	}
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	var name string
	if err := db.QueryRow("SHOW application_name").Scan(&name); err != nil {
		log.Fatal(err)
	}
	fmt.Println(name)
	// Output: shop
}

// A transfer that is made once or not at all, and made again when that is certain to be safe.
func ExampleInTx_transfer() {
	db, err := sql.Open("managedpg", server()+"&pool_size=2")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, "CREATE TABLE example_account (id text PRIMARY KEY, balance int CHECK (balance >= 0))"); err != nil {
		log.Fatal(err)
	}
	defer db.ExecContext(ctx, "DROP TABLE example_account")
	if _, err := db.ExecContext(ctx, "INSERT INTO example_account VALUES ('a', 100), ('b', 0)"); err != nil {
		log.Fatal(err)
	}

	transfer := func(amount int) error {
		return managedpg.InTx(ctx, db, &managedpg.TxOptions{Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "UPDATE example_account SET balance = balance + $1 WHERE id = 'b'", amount); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "UPDATE example_account SET balance = balance - $1 WHERE id = 'a'", amount)
			return err
		})
	}
	fmt.Println("30:", transfer(30) == nil)
	fmt.Println("90:", transfer(90) == nil) // more than there is: rolled back
	var a, b int
	if err := db.QueryRowContext(ctx, "SELECT sum(balance) FILTER (WHERE id = 'a'), sum(balance) FILTER (WHERE id = 'b') FROM example_account").Scan(&a, &b); err != nil {
		log.Fatal(err)
	}
	fmt.Println(a, b)
	// Output:
	// 30: true
	// 90: false
	// 70 30
}

// A COMMIT whose answer got lost is looked up on the server, where that can be known.
func ExampleTxOptions() {
	var db *sql.DB
	opts := &managedpg.TxOptions{
		TxOptions:     sql.TxOptions{Isolation: sql.LevelSerializable},
		Retries:       5,
		ResolveCommit: true,
	}
	err := managedpg.InTx(context.Background(), db, opts, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO payment VALUES ($1)", 4711)
		return err
	})
	var lost *conn.LostError
	if errors.As(err, &lost) && errors.Is(err, managedpg.ErrOutcomeUnknown) {
		log.Printf("transaction %d on %s: nobody could tell", lost.XID, lost.Endpoint)
	}
}

// A listener holds its connection for long, which is no leak.
func ExampleLongCheckout() {
	db, err := sql.Open("managedpg", server()+"&pool_size=2&leak_threshold=10s&leak_reclaim_after=1m")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()

	c, err := db.Conn(managedpg.LongCheckout(ctx))
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	err = c.Raw(func(driverConn any) error {
		listener := managedpg.Unwrap(driverConn).(*stdlib.Conn).Conn()
		if _, err := listener.Exec(ctx, "LISTEN example_orders"); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "NOTIFY example_orders, '17'"); err != nil {
			return err
		}
		n, err := listener.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		fmt.Println("order", n.Payload)
		_, err = listener.Exec(ctx, "UNLISTEN *")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: order 17
}

// What only pgx has, COPY for one.
func ExampleUnwrap() {
	db, err := sql.Open("managedpg", server()+"&pool_size=2")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()

	c, err := db.Conn(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ExecContext(ctx, "CREATE TEMPORARY TABLE copied (id int)"); err != nil {
		log.Fatal(err)
	}
	err = c.Raw(func(driverConn any) error {
		pgxConn := managedpg.Unwrap(driverConn).(*stdlib.Conn).Conn()
		n, err := pgxConn.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id"}, pgx.CopyFromRows([][]any{{1}, {2}, {3}}))
		fmt.Println(n, "rows")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 3 rows
}

// Of all pools at once; Config.Logger is for one.
func ExampleSetLogger() {
	managedpg.SetLogger(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
}

// An exhausted pool says who has its connections.
func ExampleErrPoolTimeout() {
	db, err := sql.Open("managedpg", server()+"&pool_size=1&max_overflow=0&pool_timeout=0&pool_name=small")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	forgotten, err := db.Conn(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer forgotten.Close()

	_, err = db.ExecContext(ctx, "SELECT 1")
	var timeout *conn.PoolTimeoutError
	if errors.As(err, &timeout) {
		fmt.Printf("pool %s: %d open, %d in use, %d holders named\n", timeout.Pool, timeout.Open, timeout.InUse, len(timeout.Longest))
	}
	fmt.Println(errors.Is(err, managedpg.ErrPoolTimeout))
	// Output:
	// pool small: 1 open, 1 in use, 1 holders named
	// true
}

// Why each server could not be used.
func ExampleErrNoEndpoint() {
	db, err := sql.Open("managedpg", "host=127.0.0.1,127.0.0.1 port=1,2 user=app sslmode=disable failover_timeout=0")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	defer managedpg.SetLogger(nil)

	err = db.Ping()
	fmt.Println(errors.Is(err, managedpg.ErrNoEndpoint))
	var none *failover.NoEndpointError
	if errors.As(err, &none) {
		for _, e := range none.Endpoints {
			fmt.Println(e.Endpoint, e.State)
		}
	}
	// Output:
	// true
	// 127.0.0.1:1/app down
	// 127.0.0.1:2/app down
}
