package main

import (
	"database/sql"
	"database/sql/driver"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/bench/internal/peers"
)

// poolSize is pool_size of the subjects that the driver governs.
const poolSize = 8

// overFake is managedpg on the fake driver. The Config is that of a DSN: with everything at its default.
func overFake(name string, change func(*managedpg.Config)) *subject {
	return &subject{name: name, limits: sized, open: func() (*sql.DB, error) {
		cfg, err := managedpg.ParseDSN("host=localhost")
		if err != nil {
			return nil, err
		}
		cfg.Endpoints = []driver.Connector{fake{}}
		change(cfg)
		return managedpg.OpenDB(cfg)
	}}
}

// registered is a subject behind sql.Open.
func registered(name, driverName, dsn string) *subject {
	return &subject{name: name, limits: sized, open: func() (*sql.DB, error) { return sql.Open(driverName, dsn) }}
}

// wrapped is a peer that database/sql governs.
func wrapped(name string, open func(dsn string) (*sql.DB, error), dsn string) *subject {
	return &subject{name: name, limits: sized, open: func() (*sql.DB, error) { return open(dsn) }}
}

func pgxpool(dsn string) *subject {
	return &subject{name: "pgxpool", open: func() (*sql.DB, error) { return peers.Pgxpool(dsn, poolSize) }}
}

// limited is a subject with other limits.
func limited(name string, s *subject, l limits) *subject { return &subject{name, s.open, l} }
