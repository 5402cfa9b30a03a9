// Package stats counts what happens in a pool and tells it as a Snapshot.
//
// Recording is lock-free and allocates nothing. The package knows nothing of connections.
package stats
