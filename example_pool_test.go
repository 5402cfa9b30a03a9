package managedpg_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"time"

	"github.com/managedpg/managedpg"
)

// However a Config is printed, it shows no password, and only what isn't the default.
func ExampleConfig_String() {
	cfg, err := managedpg.ParseDSN("postgres://app:secret@db1/shop?sslmode=verify-full&pool_size=10&max_overflow=10")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg)
	// Output: user=app password=xxxxx host=db1 dbname=shop sslmode=verify-full pool_name=db1:5432/shop pool_size=10
}

// Who has held a connection for too long.
func ExamplePool_Leaks() {
	db, pool := openExample("pool_size=2", "leak_threshold=20ms")
	defer db.Close()
	forgotten, err := db.Conn(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer forgotten.Close()

	for len(pool.Leaks()) == 0 {
		time.Sleep(time.Millisecond)
	}
	for _, r := range pool.Leaks() { // fmt.Println(r) has the line of code, and r.Stack how it came there
		fmt.Println("connection", r.ConnectionID, "held too long:", r.Duration >= 20*time.Millisecond)
	}
	// Output: connection 1 held too long: true
}

// What the probes know; CheckNow doesn't wait for the next one.
func ExamplePool_Health() {
	db, pool := openExample("pool_size=2")
	defer db.Close()

	pool.CheckNow(context.Background())
	h := pool.Health()
	fmt.Printf("healthy %v, %.0f %% of the checks succeeded\n", h.Healthy, h.SuccessRate)
	for _, e := range h.Endpoints {
		fmt.Printf("%s, %s, timeline %d\n", e.State, e.Role, e.Timeline)
	}
	// Output:
	// healthy true, 100 % of the checks succeeded
	// up, read-write, timeline 1
}

// Which server is used, and how it came to that.
func ExamplePool_Failover() {
	db, pool := openExample("pool_size=2")
	defer db.Close()

	s := pool.Failover()
	fmt.Printf("the first of %d: %v, after %d failovers\n", len(s.Endpoints), s.IsPrimary, s.FailoverCount)
	for _, e := range s.History {
		fmt.Println(e.At, e.Kind, "from", e.From, "to", e.To, "because", e.Reason)
	}
	// Output: the first of 1: true, after 0 failovers
}

// Back to the preferred server at once, without waiting for failback_after good probes.
func ExamplePool_Failback() {
	db, pool := openExample("pool_size=2")
	defer db.Close()
	if err := pool.Failback(context.Background()); err != nil {
		log.Println("it stays where it is:", err)
	}
}

// New connections from now on: after ALTER ROLE ... SET, say.
func ExamplePool_Drain() {
	db, pool := openExample("pool_size=2")
	defer db.Close()
	if err := db.Ping(); err != nil {
		log.Fatal(err)
	}
	pool.Drain()
	if err := db.Ping(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(pool.Stats().TotalConnectionsCreated, "connections were opened")
	// Output: 2 connections were opened
}

// Figures that count from now on.
func ExamplePool_ResetStats() {
	db, pool := openExample("pool_size=2")
	defer db.Close()
	if err := db.Ping(); err != nil {
		log.Fatal(err)
	}
	pool.ResetStats()
	s := pool.Stats()
	fmt.Println(s.TotalCheckouts, "checkouts,", s.Open, "connection open")
	// Output: 0 checkouts, 1 connection open
}

func openExample(keys ...string) (*sql.DB, *managedpg.Pool) {
	dsn := server()
	for _, key := range keys {
		dsn += "&" + key
	}
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		log.Fatal(err)
	}
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		log.Fatal(err)
	}
	pool, _ := managedpg.PoolOf(db)
	return db, pool
}
