// Package sim plays the whole driver in fake time: database/sql, managedpg, pgx and lib/pq as they are, over a simulated network and simulated
// PostgreSQL servers, while connections die at any byte, and servers are killed, frozen, full, out of reach, or promoted while the old
// primary goes on. In the end what callers were told is held against what the servers have.
//
// A seed decides all of it, and plays to the same end each time: see overlay_test.go. The parts, in the order in which to read them:
//
//   - plan.go: what a seed decides beforehand
//   - network.go: connections, names, and how they fail
//   - cluster.go, session.go, sql.go: as much of PostgreSQL as the load and the driver ask for
//   - load.go, faults.go, promotion.go, operations.go: the calls, and the faults
//   - world.go, check.go: a run, and what must hold in it
package sim
