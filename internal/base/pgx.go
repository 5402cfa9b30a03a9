package base

import (
	"context"
	"database/sql/driver"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/internal/wire"
)

// Pgx is an endpoint through pgx. The dialer's socket options hold unless configure puts a DialFunc of its own in place;
// our socket goes around either. configure may be nil.
func Pgx(name, dsn string, o Options, configure func(*pgx.ConnConfig) error, opts ...stdlib.OptionOpenDB) (*Endpoint, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.ConnectTimeout = 0 // the context has it
	cfg.DialFunc = o.Dialer.Open
	plain := *cfg
	if configure != nil {
		if err := configure(cfg); err != nil {
			return nil, err
		}
	}
	under := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, network, address, wire.Open(under))
	}
	lookup, named := cfg.LookupFunc, cfg.Host
	cfg.LookupFunc = lookupPinned(lookup, named)
	cfg.BuildFrontend = readsOfCalls(cfg.BuildFrontend)
	e := &Endpoint{Name: name, cancels: newCanceller(o.CancelTimeout)}
	asking := withoutHooks(cfg, &plain)
	asking.BuildContextWatcherHandler = e.cancels.pgxWatcher
	if sameFunc(plain.BuildContextWatcherHandler, cfg.BuildContextWatcherHandler) {
		cfg.BuildContextWatcherHandler = e.cancels.pgxWatcher
	}
	aroundHooks(cfg)
	cfg.OnNotice = watchNotices(cfg.OnNotice)
	asking.OnNotice = watchNotices(nil)
	// The pool decides when a connection is pinged, for both drivers alike.
	never := stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })
	e.driver = &pgxOpener{
		theirs: stdlib.GetConnector(*cfg, append([]stdlib.OptionOpenDB{never, noAfterConnect}, opts...)...),
		ours:   stdlib.GetConnector(*asking, append(append([]stdlib.OptionOpenDB{}, opts...), never, noAfterConnect, noReset)...),
	}
	if isName(named) || configure != nil && !isSocket(named) { // a LookupFunc of the user's may make anything of an address
		e.Lookup = func(ctx context.Context) ([]string, error) { return lookup(ctx, named) }
	}
	return e, nil
}

// lookupPinned gives the one address that a dial is to lead to in place of the endpoint's host.
func lookupPinned(lookup pgconn.LookupFunc, endpoint string) pgconn.LookupFunc {
	return func(ctx context.Context, host string) ([]string, error) {
		if d := dialingOf(ctx); d != nil {
			d.serverBegins(ctx)
			if host == endpoint && d.to != (pin{}) {
				return d.to.lookup()
			}
		}
		return lookup(ctx, host)
	}
}

// readsOfCalls lets the socket know which of its reads calls wait for.
func readsOfCalls(build pgconn.BuildFrontendFunc) pgconn.BuildFrontendFunc {
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend { return build(wire.ReadsOfCalls(r, w), w) }
}

func watchNotices(theirs pgconn.NoticeHandler) pgconn.NoticeHandler {
	return func(c *pgconn.PgConn, n *pgconn.Notice) {
		if f, ok := c.CustomData()[noticeKey].(func()); ok && n.Routine == syncWait {
			f()
		}
		if theirs != nil {
			theirs(c, n)
		}
	}
}

const noticeKey = "github.com/managedpg/managedpg"

// pgxOpener finds the address to dial in the context.
type pgxOpener struct{ theirs, ours driver.Connector }

func (o *pgxOpener) at(pin) opener                               { return o }
func (o *pgxOpener) connectors() (theirs, ours driver.Connector) { return o.theirs, o.ours }

// connecting: pgx begins with OptionBeforeConnect.
func (*pgxOpener) connecting(ctx context.Context, d *dialing) (connected func()) {
	d.hookBegins(ctx)
	return func() { d.hookEnds(ctx) }
}

func (*pgxOpener) conn(raw driver.Conn, d *dialing) Conn { return newPgxConn(raw.(*stdlib.Conn), d) }

// pgxConn is a connection of pgx's.
type pgxConn struct {
	common
	conn *stdlib.Conn
	pg   *pgconn.PgConn
	hook bool // see HasHook
}

var _ Conn = (*pgxConn)(nil)

func newPgxConn(conn *stdlib.Conn, d *dialing) *pgxConn {
	c := &pgxConn{
		common: common{features: featuresOf(conn), socket: d.Socket(), cancels: &Cancels{}},
		conn:   conn,
		pg:     conn.Conn().PgConn(),
	}
	if w, ok := c.pg.CustomData()[watcherKey].(*pgxWatcher); ok { // the user may have put a handler of their own in its place
		c.cancels = &w.cancels
	}
	c.hook = c.socket != nil && (d.prepared || !d.plain)
	return c
}

func (*pgxConn) Known() bool        { return true }
func (*pgxConn) Askable() bool      { return true }
func (*pgxConn) ObeysContext() bool { return true }
func (*pgxConn) PreparesAnew() bool { return true }
func (c *pgxConn) HasHook() bool    { return c.hook }

func (c *pgxConn) TxStatus() TxStatus { return TxStatus(c.pg.TxStatus()) }
func (c *pgxConn) Closed() bool       { return c.pg.IsClosed() }
func (c *pgxConn) Busy() bool         { return c.pg.IsBusy() }
func (c *pgxConn) Standby() Answer    { return AnswerOf(c.pg.ParameterStatus("in_hot_standby")) }

// Mark is -1 on a socket that isn't ours if nothing can be sent any more.
func (c *pgxConn) Mark() int64 {
	switch {
	case c.socket != nil:
		return c.socket.Writes()
	case c.Closed():
		return -1
	default:
		return 0
	}
}

func (c *pgxConn) Sent(mark int64) bool {
	if c.socket != nil {
		return c.socket.Writes() != mark
	}
	return mark == 0
}

// Identify goes by what the server reported in the startup.
func (c *pgxConn) Identify(ctx context.Context, role, timeline bool) (Server, error) {
	s := Server{PID: c.pg.PID(), Standby: c.Standby(), ReadOnly: AnswerOf(c.pg.ParameterStatus("default_transaction_read_only"))}
	if !needsAsking(s, role, timeline) {
		return s, nil
	}
	return askIdentity(ctx, c, s, timeline)
}

func (c *pgxConn) Ask(ctx context.Context, query string) ([]string, error) {
	results, err := c.pg.Exec(ctx, query).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, ErrNoRow
	}
	var row []string
	for _, v := range results[0].Rows[0] {
		row = append(row, string(v))
	}
	return row, nil
}

func (c *pgxConn) RoundTrip(ctx context.Context) error { return c.pg.Exec(ctx, "").Close() }

func (c *pgxConn) ForgetStatements(ctx context.Context) error {
	return c.conn.Conn().DeallocateAll(ctx)
}

func (c *pgxConn) OnSyncWait(f func()) { c.pg.CustomData()[noticeKey] = f }

// DeadlineError is what pgx says to a call that begins too late.
func (c *pgxConn) DeadlineError(ctx context.Context) error {
	if ctx.Err() != context.DeadlineExceeded {
		return nil
	}
	if _, err := c.pg.Prepare(ctx, "", "", nil); pgconn.Timeout(err) {
		return err
	}
	return nil
}

func (c *pgxConn) Close(then func()) {
	if c.socket != nil {
		c.closeSocket(then)
		return
	}
	_ = c.conn.Close()
	// pgx may still be at its cancel request.
	go func() {
		select {
		case <-c.pg.CleanupDone():
		case <-time.After(wire.CloseLimit):
			_ = c.pg.Conn().Close()
		}
		then()
	}()
}

func (c *pgxConn) Kill(reason error) {
	if c.socket != nil {
		c.socket.CloseFor(reason)
		return
	}
	_ = c.pg.Conn().Close()
}

// cancelAfter is how long the server is given to notice by itself that its client has hung up, as it does at once unless
// rows that were left open keep it at work.
const cancelAfter = 50 * time.Millisecond

func (c *pgxConn) Abandon(then func()) {
	ctx, cancel := context.WithTimeout(context.Background(), wire.CloseLimit)
	defer cancel()
	if c.socket != nil {
		late := time.AfterFunc(cancelAfter, func() { _ = c.pg.CancelRequest(ctx) })
		defer late.Stop()
		c.hangUp(ctx, then)
		return
	}
	_ = c.pg.CancelRequest(ctx)
	_ = c.pg.Conn().Close()
	then()
}
