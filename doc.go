// Package managedpg registers the database/sql driver "managedpg": PostgreSQL through pgx or lib/pq, with a connection
// manager built in.
//
//	db, err := sql.Open("managedpg", "postgres://app@db1,db2/shop?pool_size=10")
//
// The DSN is what pgx and lib/pq take, with keys of managedpg's own; see [Config] for each. An empty DSN stands for
// DATABASE_URL, and every key but failover_urls has an environment variable (DB_POOL_SIZE, DB_LEAK_THRESHOLD, ...), over
// which the DSN wins.
//
// # The pool
//
// With pool_size the driver governs: at most pool_size + max_overflow connections, the most recently used free one first,
// those who wait served first come first served, for at most pool_timeout. max_overflow is 10 unless it is given. Leave
// SetMaxOpenConns alone then, and call SetMaxIdleConns with pool_size + max_overflow, as [OpenDB] does: database/sql keeps
// two connections unless it is told otherwise. Here they are empty handles that are made anew; without pool_size, when
// database/sql governs and its limits mean what they mean with any driver, they are real ones, and calls dial.
//
// # Failover
//
// The hosts of the DSN and failover_urls are tried in their order of preference. A server that dies costs the statements
// and transactions in flight; checkouts wait until another one is usable. A server that hangs is found by probes. With
// several endpoints target_session_attrs is read-write unless it is given: only a server that accepts writes is used.
//
// # Errors
//
// database/sql sends a call again when a driver answers [driver.ErrBadConn]. managedpg answers so only when nothing of the
// call has reached the socket. A call that was sent and not answered gets [ErrOutcomeUnknown]; one that was lost inside a
// transaction, which is rolled back then, [ErrTxLost]. The base driver's error is inside for errors.As.
//
// # Leaks
//
// A connection held for longer than leak_threshold is logged with the stack that took it, and is in [Pool.Leaks] and in the
// pprof profile "managedpg.checkouts". leak_reclaim_after takes it back. [LongCheckout] marks one that is meant to be long.
//
// # Figures
//
// [Stats] has those of all pools. [PoolOf] finds the pool of a sql.DB.
//
// [driver.ErrBadConn]: https://pkg.go.dev/database/sql/driver#pkg-variables
package managedpg
