package base

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/stdlib"
)

// Own is an endpoint through a connector of the user's own. Its sockets aren't ours, and it is asked nothing of ours.
func Own(name string, c driver.Connector) *Endpoint {
	return &Endpoint{Name: name, driver: own{c}}
}

type own struct{ connector driver.Connector }

func (o own) at(pin) opener                                         { return o }
func (o own) connectors() (theirs, ours driver.Connector)           { return o.connector, o.connector }
func (own) connecting(context.Context, *dialing) (connected func()) { return func() {} }

func (own) conn(raw driver.Conn, d *dialing) Conn {
	if c, ok := raw.(*stdlib.Conn); ok {
		return ownPgx{newPgxConn(c, d)}
	}
	return &ownConn{common{features: featuresOf(raw), cancels: &Cancels{}}}
}

// ownConn is a connection of a driver that we know nothing of.
type ownConn struct{ common }

var _ Conn = (*ownConn)(nil)

func (*ownConn) Known() bool        { return false }
func (*ownConn) Askable() bool      { return false }
func (*ownConn) ObeysContext() bool { return true }
func (*ownConn) PreparesAnew() bool { return false }
func (*ownConn) HasHook() bool      { return false }
func (*ownConn) TxStatus() TxStatus { return TxUnknown }
func (*ownConn) Closed() bool       { return false }
func (*ownConn) Busy() bool         { return false }
func (*ownConn) Standby() Answer    { return NoAnswer }
func (*ownConn) Mark() int64        { return 0 }
func (*ownConn) Sent(int64) bool    { return false }

func (*ownConn) Identify(context.Context, bool, bool) (Server, error) { return Server{}, nil }

func (c *ownConn) Ask(ctx context.Context, query string) ([]string, error) {
	return c.features.ask(ctx, query)
}

func (c *ownConn) RoundTrip(ctx context.Context) error { return c.features.Run(ctx, ";") }

func (*ownConn) ForgetStatements(context.Context) error { return nil }
func (*ownConn) OnSyncWait(func())                      {}
func (*ownConn) DeadlineError(context.Context) error    { return nil }

func (c *ownConn) Close(then func()) {
	_ = c.Raw().Close()
	then()
}

func (*ownConn) Kill(error)          {}
func (*ownConn) Abandon(then func()) { then() }

// ownPgx is a connection of pgx's that a connector of the user's own has opened: what pgx says of it is known, but nothing is asked of a
// server that we weren't told of.
type ownPgx struct{ *pgxConn }

var _ Conn = ownPgx{}

func (ownPgx) Askable() bool                                        { return false }
func (ownPgx) OnSyncWait(func())                                    {}
func (ownPgx) Identify(context.Context, bool, bool) (Server, error) { return Server{}, nil }
