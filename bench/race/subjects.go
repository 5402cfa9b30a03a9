package main

import (
	"database/sql"
	"fmt"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	_ "github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/bench/internal/peers"
)

// subject is who races: a way to open a pool over the two servers of a DSN. What the DSN doesn't say is left as it comes, but
// for the pool's size, of which each worker finds a connection.
type subject struct {
	name    string
	managed bool // managedpg's
	open    func(dsn string) (*sql.DB, error)
}

var subjects = []*subject{
	{name: "bare pgx", open: bySQL("pgx", "")},
	{name: "bare pq", open: bySQL("postgres", "")},
	{name: "pgxpool", open: func(dsn string) (*sql.DB, error) { return peers.Pgxpool(dsn, workers) }},
	{name: "managedpg, by database/sql", managed: true, open: bySQL("managedpg", "")},
	{name: "managedpg, by the driver", managed: true, open: byDriver("")},
	{name: "managedpg over pq, by database/sql", managed: true, open: bySQL("managedpg", " base_driver=pq")},
	{name: "managedpg over pq, by the driver", managed: true, open: byDriver(" base_driver=pq")},
}

// bySQL is a pool that database/sql governs.
func bySQL(driver, more string) func(dsn string) (*sql.DB, error) {
	return func(dsn string) (*sql.DB, error) {
		db, err := sql.Open(driver, dsn+more)
		if err == nil {
			db.SetMaxIdleConns(workers)
		}
		return db, err
	}
}

// byDriver is one that managedpg governs.
func byDriver(more string) func(dsn string) (*sql.DB, error) {
	return func(dsn string) (*sql.DB, error) {
		return sql.Open("managedpg", fmt.Sprintf("%s pool_size=%d%s", dsn, workers, more))
	}
}
