package base

import (
	"context"
	"database/sql/driver"

	"github.com/managedpg/managedpg/internal/wire"
)

// Conn is a connection of a base driver. Like that it is for one goroutine at a time, but for what says otherwise.
type Conn interface {
	// Raw is the driver's own connection, and Features its optional interfaces.
	Raw() driver.Conn
	Features() *Features
	// Socket is what is under it: the nil Socket if we didn't dial it.
	Socket() *wire.Socket
	// Cancels are its cancel requests.
	Cancels() *Cancels

	// Known says that the driver is pgx or lib/pq. Of another one nothing is known: what it says of its connections is believed, and they
	// can't be closed from outside.
	Known() bool
	// Askable says that the connection may be asked questions of ours: the endpoint is one that we made of a DSN.
	Askable() bool
	// ObeysContext says that a call returns once its context has ended. Else whoever calls has to see to that.
	ObeysContext() bool
	// PreparesAnew says that a statement prepares itself again which the server has forgotten.
	PreparesAnew() bool
	// HasHook says that a hook of the user's has prepared the session as it was opened, and can't be run again.
	HasHook() bool

	// TxStatus is what the server said last of the session's transaction; TxUnknown if the driver doesn't tell.
	TxStatus() TxStatus
	// Closed says that the driver has given the connection up.
	Closed() bool
	// Busy says that the answer to an earlier call is still being read, and the driver would refuse another one.
	Busy() bool
	// Standby says whether the server is one, as far as it has told the driver by now.
	Standby() Answer

	// Counts says that we see what is written to the server.
	Counts() bool
	// Mark is what a call remembers before it starts, for Sent to say whether it may have reached the server.
	Mark() int64
	Sent(mark int64) bool

	// Identify finds out about the server: about its role, and its timeline, if these are wanted and it hasn't told.
	Identify(ctx context.Context, role, timeline bool) (Server, error)
	// Ask runs a query of a single row of texts, by the simple protocol, which any pooler between passes on. Another answer is ErrNoRow.
	Ask(ctx context.Context, query string) ([]string, error)
	// RoundTrip lets the server answer once, to an empty statement.
	RoundTrip(ctx context.Context) error
	// Prepare prepares a statement for a cache that counts who uses it.
	Prepare(ctx context.Context, query string) (driver.Stmt, error)
	// ForgetStatements is to be called when the server has forgotten the session's prepared statements.
	ForgetStatements(ctx context.Context) error
	// OnSyncWait has f called when the server warns that the wait of a COMMIT for its synchronous standbys was cut short.
	OnSyncWait(f func())
	// DeadlineError is the driver's own error of a context whose deadline has passed; nil if it has none.
	DeadlineError(ctx context.Context) error

	// Close ends the connection; then is called once its socket is closed, at most wire.CloseLimit later.
	Close(then func())
	// Kill closes the socket under whoever uses the connection, from any goroutine; the reason is what they get.
	Kill(reason error)
	// Abandon ends the connection from any goroutine while somebody may still use it, and asks a server that is at work to stop. Then is
	// called once the server has ended the session, at most wire.CloseLimit later.
	Abandon(then func())
}

// syncWait is the routine in PostgreSQL's syncrep.c whose warning comes with a COMMIT when the wait for a synchronous
// standby was cut short: committed here, but perhaps nowhere else. The warning has no SQLSTATE of its own, and its text is
// in the server's language.
const syncWait = "SyncRepWaitForLSN"

// TxStatus is the state of a session's transaction, as the protocol's ReadyForQuery has it.
type TxStatus byte

// States of a transaction.
const (
	TxUnknown TxStatus = 0
	TxNone    TxStatus = 'I'
	TxOpen    TxStatus = 'T'
	TxFailed  TxStatus = 'E'
)

// common is what the connections of all drivers have.
type common struct {
	features Features
	socket   *wire.Socket
	cancels  *Cancels
}

func (c *common) Raw() driver.Conn     { return c.features.conn }
func (c *common) Features() *Features  { return &c.features }
func (c *common) Socket() *wire.Socket { return c.socket }
func (c *common) Cancels() *Cancels    { return c.cancels }
func (c *common) Counts() bool         { return c.socket != nil }

func (c *common) Prepare(ctx context.Context, query string) (driver.Stmt, error) {
	return c.features.Prepare(ctx, query)
}

// closeSocket has the driver say goodbye, and closes the socket under it when that takes too long.
func (c *common) closeSocket(then func()) {
	c.socket.CloseWithin(wire.CloseLimit, then)
	_ = c.Raw().Close()
}

// hangUp closes the socket once the server has closed its side.
func (c *common) hangUp(ctx context.Context, then func()) {
	c.socket.WhenClosed(then)
	c.socket.HangUp(ctx)
}
