// Package sqltext says what a statement's text may do to its session: begin or end a transaction, forget prepared statements.
//
// That is only asked for when it matters: when a call has failed, or, of a base driver that can't tell its session's transaction,
// when the text could begin or end one. Nothing here parses SQL. A verb counts wherever a statement could start, in a comment too: one
// may be seen that isn't there, but none is missed.
package sqltext
