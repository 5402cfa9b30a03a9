// Package conn has what a call is told of its connection: the errors of a checkout that found none in time, of a connection that was
// lost or taken back, and what became of a transaction whose COMMIT was not answered ([LostError]'s Resolve).
//
// The connections themselves are in internal/conn.
package conn
