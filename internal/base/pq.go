package base

import (
	"context"
	"database/sql/driver"
	"net"
	"time"

	"github.com/lib/pq"

	"github.com/managedpg/managedpg/internal/wire"
)

// Pq is an endpoint through lib/pq.
func Pq(name, dsn string, o Options) (*Endpoint, error) {
	cfg, err := pq.NewConfig(dsn)
	if err != nil {
		return nil, err
	}
	if _, err := pq.NewConnectorConfig(cfg); err != nil {
		return nil, err
	}
	cancels := newCanceller(o.CancelTimeout)
	e := &Endpoint{Name: name, cancels: cancels, driver: newPqOpener(cfg, &o, cancels, pin{})}
	if !cfg.Hostaddr.IsValid() && isName(cfg.Host) {
		e.Lookup = func(ctx context.Context) ([]string, error) { return net.DefaultResolver.LookupHost(ctx, cfg.Host) }
	}
	return e, nil
}

// pqOpener opens connections to one address. lib/pq's own cancel requests dial the name again: they must reach the server that the
// connection leads to, so there is a connector for each address.
type pqOpener struct {
	cfg       pq.Config
	options   *Options
	cancels   *canceller
	connector *pq.Connector
}

func newPqOpener(cfg pq.Config, o *Options, cancels *canceller, to pin) *pqOpener {
	c, _ := pq.NewConnectorConfig(cfg)
	c.Dialer(pqDialer{o.Dialer.Open, to})
	return &pqOpener{cfg: cfg, options: o, cancels: cancels, connector: c}
}

func (o *pqOpener) at(to pin) opener { return newPqOpener(o.cfg, o.options, o.cancels, to) }

func (o *pqOpener) connectors() (theirs, ours driver.Connector) { return o.connector, o.connector }

// connecting has the context hold while lib/pq reads, too.
func (*pqOpener) connecting(ctx context.Context, d *dialing) (connected func()) {
	stop := context.AfterFunc(ctx, func() { d.Abort(ctx.Err()) })
	return func() { stop() }
}

func (o *pqOpener) conn(raw driver.Conn, d *dialing) Conn {
	c := &pqConn{common{features: featuresOf(raw), socket: d.Socket(), cancels: &Cancels{to: o.cancels}}}
	if c.socket.CanCancel() {
		c.cancels.send = c.socket.Cancel
	}
	return c
}

// pqDialer is our dial as lib/pq wants it.
type pqDialer struct {
	open wire.Open
	to   pin
}

func (p pqDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	address, err := p.to.replace(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err} // as net.Dialer has it
	}
	c, err := dial(ctx, network, address, p.open)
	if s, ok := c.(*wire.Socket); ok {
		s.ReadStartup(func(ctx context.Context) (net.Conn, error) { return wire.DialCancel(ctx, network, address, p.open) })
	}
	return c, err
}

func (p pqDialer) Dial(network, address string) (net.Conn, error) {
	return p.DialContext(context.Background(), network, address)
}

func (p pqDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.DialContext(ctx, network, address)
}

// pqConn is a connection of lib/pq's. It knows nothing of its transaction, and reads on when a call's context has ended.
type pqConn struct{ common }

var _ Conn = (*pqConn)(nil)

func (*pqConn) Known() bool        { return true }
func (*pqConn) Askable() bool      { return true }
func (*pqConn) ObeysContext() bool { return false }
func (*pqConn) PreparesAnew() bool { return false }
func (*pqConn) HasHook() bool      { return false }
func (*pqConn) TxStatus() TxStatus { return TxUnknown }
func (*pqConn) Closed() bool       { return false }
func (*pqConn) Busy() bool         { return false }
func (*pqConn) Standby() Answer    { return NoAnswer }

func (c *pqConn) Mark() int64          { return c.socket.Writes() }
func (c *pqConn) Sent(mark int64) bool { return c.socket.Writes() != mark }

// Identify goes by what the server reported in the startup, which our socket has read. Under TLS it couldn't, so everything is asked for.
func (c *pqConn) Identify(ctx context.Context, role, timeline bool) (Server, error) {
	told, known := c.socket.Role()
	s := Server{PID: told.PID, Standby: AnswerOf(told.InHotStandby), ReadOnly: AnswerOf(told.DefaultTransactionReadOnly)}
	if known && !needsAsking(s, role, timeline) {
		return s, nil
	}
	return askIdentity(ctx, c, s, timeline)
}

func (c *pqConn) Ask(ctx context.Context, query string) ([]string, error) {
	return c.features.ask(ctx, query)
}

func (c *pqConn) RoundTrip(ctx context.Context) error { return c.features.Run(ctx, ";") }

func (*pqConn) ForgetStatements(context.Context) error { return nil }
func (*pqConn) DeadlineError(context.Context) error    { return nil }

func (c *pqConn) OnSyncWait(f func()) {
	pq.SetNoticeHandler(c.Raw(), func(n *pq.Error) {
		if n.Routine == syncWait {
			f()
		}
	})
}

func (c *pqConn) Close(then func()) { c.closeSocket(then) }
func (c *pqConn) Kill(reason error) { c.socket.CloseFor(reason) }

// Abandon asks for no cancel: lib/pq sends one when the context of the rows ends.
func (c *pqConn) Abandon(then func()) {
	ctx, cancel := context.WithTimeout(context.Background(), wire.CloseLimit)
	defer cancel()
	c.hangUp(ctx, then)
}
