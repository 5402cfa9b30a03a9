// Package pgtest starts throwaway PostgreSQL clusters for tests, examples and benchmarks, breaks them on purpose, and puts
// a proxy between a client and a server that loses an answer at a chosen moment.
//
// A test asks for a database of its own on a cluster that the whole test binary shares, or for a cluster of its own that it
// may kill, freeze, promote or fill up:
//
//	dsn := pgtest.Database(t)
//	c := pgtest.Start(t, pgtest.Conf("max_connections=20"))
//
// Servers are real ones, found as [New] says. They end with the process that started them, whatever way that ends, and
// leave no file behind. A machine without PostgreSQL fails the test and is told how to install it; nothing is skipped.
//
// Freeze and the killing of backends need Linux; the rest runs wherever PostgreSQL and a POSIX shell do.
package pgtest
