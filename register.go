package managedpg

import (
	"context"
	"database/sql"

	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	internalconn "github.com/managedpg/managedpg/internal/conn"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

func init() {
	sql.Register("managedpg", &driver.Driver{FromDSN: newConnector})
}

// For errors.Is. All but ErrClosed come wrapped in a typed error with detail: [conn.PoolTimeoutError], [conn.ReclaimedError],
// [conn.LostError], [failover.NoEndpointError].
var (
	// ErrPoolTimeout: no connection became free within pool_timeout.
	ErrPoolTimeout = conn.ErrPoolTimeout
	// ErrNoEndpoint: no endpoint was usable within the checkout's time; see failover.NoEndpointError.
	ErrNoEndpoint = failover.ErrNoEndpoint
	// ErrClosed: the pool was closed, by sql.DB.Close.
	ErrClosed = conn.ErrClosed
	// ErrReclaimed: the connection was held for longer than leak_reclaim_after and taken back.
	ErrReclaimed = conn.ErrReclaimed
	// ErrTxLost: the connection was lost inside a transaction. The transaction was rolled back, for certain.
	ErrTxLost = conn.ErrTxLost
	// ErrOutcomeUnknown: the connection was lost after a statement had been sent and before it was answered. It ran, or
	// it did not; it was not sent twice.
	ErrOutcomeUnknown = conn.ErrOutcomeUnknown
)

// Stats are the figures of every open pool, by name.
func Stats() []stats.Snapshot {
	var all []stats.Snapshot
	for _, c := range driver.Connectors() {
		all = append(all, c.Stats())
	}
	return all
}

// Pools are all open pools, by name.
func Pools() []*Pool {
	var all []*Pool
	for _, c := range driver.Connectors() {
		all = append(all, (*Pool)(c))
	}
	return all
}

// PoolOf is the pool behind a sql.DB. It is false for a sql.DB that isn't managedpg's, or that has a wrapper (otelsql and
// the like) between itself and managedpg; [Pools] has the pool then.
func PoolOf(db *sql.DB) (*Pool, bool) {
	d, ok := db.Driver().(*driver.Driver)
	if !ok || d.Pool() == nil {
		return nil, false
	}
	return (*Pool)(d.Pool()), true
}

// LongCheckout returns a context for a checkout that is meant to be long, as LISTEN's is: it is never reported as a leak
// and never reclaimed.
func LongCheckout(ctx context.Context) context.Context { return leak.LongCheckout(ctx) }

// ReadOnly returns a context for what only reads: with standby_reads a checkout for it gets a connection to a standby, on which nothing can
// be written (SQLSTATE 25006), and which may be behind the primary. Without standby_reads it changes nothing. A sql.Conn and a
// transaction stay on the connection with which they began.
func ReadOnly(ctx context.Context) context.Context { return internalconn.ReadOnly(ctx) }

// Unwrap is the base driver's connection inside a driver connection of managedpg's: a *stdlib.Conn of pgx, or lib/pq's. It
// is for sql.Conn.Raw:
//
//	err := conn.Raw(func(c any) error {
//		pgxConn := managedpg.Unwrap(c).(*stdlib.Conn).Conn()
//		...
//	})
//
// It sees through the connections of otelsql, sqlmw and other wrappers that have a method Raw() driver.Conn or pass CheckNamedValue on. Any
// other value comes back as it is. The base connection must not be used after Raw's function has returned. [PgxConn] does all
// of this for pgx.
//
// With SetMaxOpenConns in force beside pool_size the connection may still have to be got from the pool, and Unwrap has no context to go by: not
// [ReadOnly], nor [LongCheckout], nor a deadline. Where that matters call PingContext of the sql.Conn before Raw, with the context.
func Unwrap(driverConn any) any { return internalconn.Unwrap(driverConn) }
