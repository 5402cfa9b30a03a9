package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	_ "github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/bench/internal/peers"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// connections is how many each subject may open.
const connections = 8

// subject is a way to open a pool of that many.
type subject struct {
	name     string
	governed bool // by managedpg
	open     func(dsn string) (*sql.DB, error)
}

const barePgx, pgxPool = "bare pgx", "pgxpool"

var subjects = []*subject{
	{barePgx, false, bySQL("pgx", "")},
	{"bare pq", false, bySQL("postgres", "")},
	{pgxPool, false, func(dsn string) (*sql.DB, error) { return peers.Pgxpool(dsn, connections) }},
	{"managedpg, by database/sql", false, bySQL("managedpg", "")},
	{"managedpg, by the driver", true, byDriver("")},
	{"managedpg over pq, by database/sql", false, bySQL("managedpg", " base_driver=pq")},
	{"managedpg over pq, by the driver", true, byDriver(" base_driver=pq")},
}

func bySQL(driver, more string) func(dsn string) (*sql.DB, error) {
	return func(dsn string) (*sql.DB, error) {
		db, err := sql.Open(driver, dsn+more)
		if err == nil {
			db.SetMaxOpenConns(connections)
			db.SetMaxIdleConns(connections)
		}
		return db, err
	}
}

func byDriver(more string) func(dsn string) (*sql.DB, error) {
	return func(dsn string) (*sql.DB, error) {
		db, err := sql.Open("managedpg", fmt.Sprintf("%s pool_size=%d max_overflow=0%s", dsn, connections, more))
		if err == nil {
			db.SetMaxIdleConns(4 * connections) // without connections of their own
		}
		return db, err
	}
}

// world is the server, and the relay before it.
type world struct {
	server *pgtest.Cluster
	relay  *pgtest.Relay
}

func newWorld() (*world, error) {
	c, err := pgtest.New(pgtest.Conf("max_connections=300"))
	if err != nil {
		return nil, err
	}
	r, err := pgtest.NewRelay(c.Addr())
	if err != nil {
		c.Close()
		return nil, err
	}
	return &world{c, r}, nil
}

func (w *world) close() {
	w.relay.Close()
	w.server.Close()
}

func (w *world) dsn() string {
	host, port := splitAddr(w.relay.Addr())
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port)
}

// try runs one subject through a scenario.
func (w *world) try(s *scenario, by *subject) (figures, error) {
	w.relay.Set(pgtest.RelayMode{})
	capacity := 0.0
	if s.capacity > 0 {
		var err error
		if capacity, err = w.capacity(s.capacity); err != nil {
			return nil, err
		}
	}
	db, err := by.open(w.dsn())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if !s.cold {
		if err := warm(db); err != nil {
			return nil, err
		}
	}
	sessions := w.relay.Sessions()
	f, err := s.run(w, db, capacity)
	if err != nil {
		return nil, err
	}
	f["sessions"] = float64(w.relay.Sessions() - sessions)
	return f, nil
}

// capacity is how many calls a second bare pgx gets done with all connections at work.
func (w *world) capacity(service time.Duration) (float64, error) {
	db, err := subjects[0].open(w.dsn())
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if err := warm(db); err != nil {
		return 0, err
	}
	var l load
	began := time.Now()
	l.closed(connections, 500*time.Millisecond, sleep(db, service, 0))
	return float64(len(l.served())) / time.Since(began).Seconds(), nil
}

// warm opens all connections and gives them back.
func warm(db *sql.DB) error {
	var held []*sql.Conn
	for range connections {
		c, err := db.Conn(context.Background())
		if err != nil {
			return err
		}
		held = append(held, c)
	}
	for _, c := range held {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}
