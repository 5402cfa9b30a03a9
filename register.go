package managedpg

import (
	"context"
	"database/sql"
	"log/slog"

	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

func init() {
	sql.Register("managedpg", &driver.Driver{})
}

// Config is what a DSN says, key by key, and what a DSN can't say. Start from [ParseDSN] and change fields.
type Config = driver.Config

// Pool is the pool behind a sql.DB: its figures, its leaks, and what can be done to it.
type Pool = driver.Connector

// For errors.Is. Each comes wrapped in a typed error with detail: conn.PoolTimeoutError, conn.ReclaimedError,
// conn.LostError, failover.NoEndpointError.
var (
	// ErrPoolTimeout: no connection became free within pool_timeout.
	ErrPoolTimeout = conn.ErrPoolTimeout
	// ErrNoEndpoint: no endpoint was usable within the checkout's time; see failover.NoEndpointError.
	ErrNoEndpoint = failover.ErrNoEndpoint
	// ErrReclaimed: the connection was held for longer than leak_reclaim_after and taken back.
	ErrReclaimed = conn.ErrReclaimed
	// ErrTxLost: the connection was lost inside a transaction. The transaction was rolled back, for certain.
	ErrTxLost = conn.ErrTxLost
	// ErrOutcomeUnknown: the connection was lost after a statement had been sent and before it was answered. It ran, or
	// it did not; it was not sent twice.
	ErrOutcomeUnknown = conn.ErrOutcomeUnknown
)

// Stats are the figures of every open pool, by name.
func Stats() []stats.Snapshot { return driver.Stats() }

// Pools are all open pools, by name.
func Pools() []*Pool { return driver.Pools() }

// PoolOf is the pool behind a sql.DB. It is false for a sql.DB that isn't managedpg's, or that has a wrapper (otelsql and
// the like) between itself and managedpg; [Pools] has the pool then.
func PoolOf(db *sql.DB) (*Pool, bool) { return driver.PoolOf(db) }

// ParseDSN is what sql.Open would use of a DSN and the environment.
func ParseDSN(dsn string) (*Config, error) { return driver.ParseDSN(dsn) }

// OpenDB is sql.Open for a Config. Like sql.Open it doesn't connect; what is wrong with the Config is found here.
func OpenDB(cfg *Config) (*sql.DB, error) { return driver.OpenDB(cfg) }

// LongCheckout returns a context for a checkout that is meant to be long, as LISTEN's is: it is never reported as a leak
// and never reclaimed.
func LongCheckout(ctx context.Context) context.Context { return leak.LongCheckout(ctx) }

// Unwrap is the base driver's connection inside a driver connection of managedpg's: a *stdlib.Conn of pgx, or lib/pq's. It
// is for sql.Conn.Raw:
//
//	err := conn.Raw(func(c any) error {
//		pgxConn := managedpg.Unwrap(c).(*stdlib.Conn).Conn()
//		...
//	})
//
// Any other value comes back as it is. The base connection must not be used after Raw's function has returned.
func Unwrap(driverConn any) any { return conn.Unwrap(driverConn) }

// SetLogger sets where pools log whose Config has no Logger. The default is slog.Default(), also after SetLogger(nil).
func SetLogger(l *slog.Logger) { driver.SetLogger(l) }
