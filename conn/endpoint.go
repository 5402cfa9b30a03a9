package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg/internal/usercode"
)

// Endpoint opens connections to one server through one base driver.
type Endpoint struct {
	// Name is host:port/dbname, without secrets.
	Name string
	// Lookup gives the addresses of the host, each of a server of its own: see At. nil: it isn't a name.
	Lookup func(context.Context) ([]string, error)

	pinned    pin
	dialledBy func(pin) driver.Connector // lib/pq's, which can't be told at each dial; nil: pgx asks
	canceller *canceller
	connector driver.Connector
	asking    driver.Connector // for connections of our own, that ask something and run none of the user's hooks
	deaf      bool             // the base doesn't obey its context while it waits for the server
	watchSync func(base driver.Conn, unsure func())
}

// Pgx is an endpoint through pgx. The dialer's socket options hold unless configure puts a DialFunc of its own in place;
// our socket goes around either. configure may be nil.
func Pgx(name, dsn string, d *Dialer, configure func(*pgx.ConnConfig) error, opts ...stdlib.OptionOpenDB) (*Endpoint, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.ConnectTimeout = 0 // the context has it
	cfg.DialFunc = d.open
	plain := *cfg
	if configure != nil {
		if err := configure(cfg); err != nil {
			return nil, err
		}
	}
	under := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, network, address, under)
	}
	lookup, named := cfg.LookupFunc, cfg.Host
	cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		serverBegins(ctx)
		if d, ok := ctx.Value(dialingKey{}).(*dialing); ok && host == named && d.pinned != (pin{}) {
			return d.pinned.lookup()
		}
		return lookup(ctx, host)
	}
	cfg.BuildFrontend = readsOfCalls(cfg.BuildFrontend)
	e := &Endpoint{Name: name, canceller: newCanceller(d.CancelTimeout)}
	asking := withoutHooks(cfg, &plain)
	asking.BuildContextWatcherHandler = e.canceller.pgxWatcher
	if sameFunc(plain.BuildContextWatcherHandler, cfg.BuildContextWatcherHandler) {
		cfg.BuildContextWatcherHandler = e.canceller.pgxWatcher
	}
	aroundHooks(cfg)
	cfg.OnNotice = watchNotices(cfg.OnNotice)
	asking.OnNotice = watchNotices(nil)
	// The pool decides when a connection is pinged, for both bases alike.
	never := stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return false })
	e.connector = stdlib.GetConnector(*cfg, append([]stdlib.OptionOpenDB{never, noAfterConnect}, opts...)...)
	e.asking = stdlib.GetConnector(*asking, append(append([]stdlib.OptionOpenDB{}, opts...), never, noAfterConnect, noReset)...)
	e.watchSync = func(base driver.Conn, unsure func()) {
		base.(*stdlib.Conn).Conn().PgConn().CustomData()[noticeKey] = unsure
	}
	if isName(named) || configure != nil && !isSocket(named) { // a LookupFunc of the user's may make anything of an address
		e.Lookup = func(ctx context.Context) ([]string, error) { return lookup(ctx, named) }
	}
	return e, nil
}

func watchNotices(theirs pgconn.NoticeHandler) pgconn.NoticeHandler {
	return func(c *pgconn.PgConn, n *pgconn.Notice) {
		if unsure, ok := c.CustomData()[noticeKey].(func()); ok && n.Routine == syncWait {
			unsure()
		}
		if theirs != nil {
			theirs(c, n)
		}
	}
}

const noticeKey = "github.com/managedpg/managedpg"

// Pq is an endpoint through lib/pq.
func Pq(name, dsn string, d *Dialer) (*Endpoint, error) {
	cfg, err := pq.NewConfig(dsn)
	if err != nil {
		return nil, err
	}
	if _, err := pq.NewConnectorConfig(cfg); err != nil {
		return nil, err
	}
	// Its own cancel requests dial the name again: they must reach the server that the connection leads to.
	dialledBy := func(to pin) driver.Connector {
		c, _ := pq.NewConnectorConfig(cfg)
		c.Dialer(pqDialer{d, to})
		return c
	}
	c := dialledBy(pin{})
	e := &Endpoint{
		Name:      name,
		canceller: newCanceller(d.CancelTimeout),
		connector: c,
		asking:    c,
		dialledBy: dialledBy,
		deaf:      true,
		watchSync: func(base driver.Conn, unsure func()) {
			pq.SetNoticeHandler(base, func(n *pq.Error) {
				if n.Routine == syncWait {
					unsure()
				}
			})
		},
	}
	if !cfg.Hostaddr.IsValid() && isName(cfg.Host) {
		e.Lookup = func(ctx context.Context) ([]string, error) { return net.DefaultResolver.LookupHost(ctx, cfg.Host) }
	}
	return e, nil
}

// Foreign is an endpoint through a connector of the user's own. Its sockets aren't ours: see physical.lost.
func Foreign(name string, c driver.Connector) *Endpoint {
	return &Endpoint{Name: name, connector: c, asking: c}
}

// syncWait is the function in PostgreSQL's syncrep.c whose warning comes with a COMMIT when the wait for a synchronous
// standby was cut short: committed here, but perhaps nowhere else. The warning has no SQLSTATE of its own, and its text is
// in the server's language.
const syncWait = "SyncRepWaitForLSN"

// pqDialer is our dial as lib/pq wants it.
type pqDialer struct {
	d  *Dialer
	to pin
}

func (p pqDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	address, err := p.to.replace(network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err} // as net.Dialer has it
	}
	c, err := dial(ctx, network, address, p.d.open)
	if s, ok := c.(*socket); ok {
		s.own = &ownCancel{startup: new(startup), redial: func(ctx context.Context) (net.Conn, error) {
			return dialBriefly(ctx, network, address, p.d.open)
		}}
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

// ended is the context's error, also in the moment in which its deadline has passed and it doesn't know yet: a dial that
// was given the same deadline may know first.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// connect opens a base connection by one of the endpoint's connectors. The context holds for all of it, with either base; its limit
// of time, if it has one, stands still while hooks of the user's run.
func (e *Endpoint) connect(ctx context.Context, by driver.Connector) (driver.Conn, *dialing, error) {
	d := dialing{pinned: e.pinned}
	switch {
	case e.deaf:
		stop := context.AfterFunc(ctx, func() { d.abort(ctx.Err()) })
		defer stop()
	case e.watchSync != nil: // pgx begins with OptionBeforeConnect; of a connector of the user's own nothing is known
		d.hookBegins(ctx)
		defer d.hookEnds(ctx)
	}
	base, err := by.Connect(context.WithValue(ctx, dialingKey{}, &d))
	if err == nil && ctx.Err() != nil {
		_ = base.Close()
		err = ctx.Err()
	}
	if err == nil {
		return base, &d, nil
	}
	// A dial watches its context's deadline by itself, and may know of its end before the context does. That is the
	// caller's time that has passed, and tells nothing of the server.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	// pgx's stdlib forgets the connection when an AfterConnect of the user's fails.
	d.abort(err)
	if d.inHook || d.refused {
		return nil, nil, &usercode.Error{Err: err, Next: d.refused}
	}
	if ctxErr := ended(ctx); ctxErr != nil && !errors.Is(err, ctxErr) {
		err = &endedError{err: err, ctx: ctxErr}
	}
	return nil, nil, err
}
