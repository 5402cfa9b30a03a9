package base

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/usercode"
	"github.com/managedpg/managedpg/internal/wire"
)

// Options are for the connections of an Endpoint that dials by itself.
type Options struct {
	// Dialer opens their sockets.
	Dialer wire.Dialer
	// CancelTimeout is how long the server's answer to a cancel request is waited for, 0 for sending none.
	CancelTimeout time.Duration
}

// Endpoint opens connections to one server through one base driver.
type Endpoint struct {
	// Name is host:port/dbname, without secrets.
	Name string
	// Lookup gives the addresses of the host, each of a server of its own: see At. nil: it isn't a name.
	Lookup func(context.Context) ([]string, error)

	to      pin
	driver  opener
	cancels *canceller // nil: it sends no cancel requests
}

// opener is how a base driver opens connections.
type opener interface {
	// at is the opener of connections to one of the endpoint's addresses.
	at(to pin) opener
	// connectors are the one for the user's connections, and the one for our own, which ask something and run none of the user's hooks.
	connectors() (theirs, ours driver.Connector)
	// connecting is called before a connector is, and what it returns when that has returned.
	connecting(ctx context.Context, d *dialing) (connected func())
	// conn is what the connector gave, and left in d.
	conn(raw driver.Conn, d *dialing) Conn
}

// At is the endpoint at one of the addresses that Lookup gave; or, with what Lookup met in its place, one whose connections fail
// with it as the driver's own lookup would have it.
func (e *Endpoint) At(name, address string, lookupErr error) *Endpoint {
	to := pin{address, lookupErr}
	if to == (pin{}) {
		return e
	}
	at := *e
	at.Name, at.to, at.driver = name, to, e.driver.at(to)
	return &at
}

// Note says that cancel requests to the endpoint come to nothing; "" if they don't.
func (e *Endpoint) Note() string {
	if c := e.cancels; c == nil || time.Duration(c.pausedUntil.Load()) <= clock.Now() {
		return ""
	}
	return "cancel requests come to nothing, as through a pooler that doesn't pass them on: none is sent for a while, and a call that its context ends costs its connection"
}

// Connect opens a connection for the user. The context holds for all of it, with any driver of ours; its limit of time, if it has one,
// stands still while hooks of the user's run. What those return comes as a usercode.Error.
func (e *Endpoint) Connect(ctx context.Context) (Conn, error) {
	by, _ := e.driver.connectors()
	return e.connect(ctx, by)
}

// ConnectToAsk opens a connection for questions of our own.
func (e *Endpoint) ConnectToAsk(ctx context.Context) (Conn, error) {
	_, by := e.driver.connectors()
	return e.connect(ctx, by)
}

func (e *Endpoint) connect(ctx context.Context, by driver.Connector) (Conn, error) {
	d := &dialing{to: e.to}
	defer e.driver.connecting(ctx, d)()
	raw, err := by.Connect(context.WithValue(ctx, dialingKey{}, d))
	if err == nil && ctx.Err() != nil {
		_ = raw.Close()
		err = ctx.Err()
	}
	if err == nil {
		return e.driver.conn(raw, d), nil
	}
	// A dial watches its context's deadline by itself, and may know of its end before the context does. That is the
	// caller's time that has passed, and tells nothing of the server.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		<-ctx.Done()
	}
	// pgx's stdlib forgets the connection when an AfterConnect of the user's fails.
	d.Abort(err)
	if d.inHook || d.refused {
		return nil, &usercode.Error{Err: err, Next: d.refused}
	}
	if ctxErr := ended(ctx); ctxErr != nil && !errors.Is(err, ctxErr) {
		err = &EndedError{Err: err, Ctx: ctxErr}
	}
	return nil, err
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

// dialing is a connection being opened, as its context shows it to those whom the driver calls.
type dialing struct {
	wire.Dialled
	to pin

	// What follows is only touched by the driver's Connect and by who called it.
	inHook   bool // the user's code is running
	refused  bool // by ValidateConnect
	prepared bool // AfterConnect of the user's configuration has run
	plain    bool // the user's options have no AfterConnect
}

type dialingKey struct{}

// dialingOf is nil for the context of a cancel request.
func dialingOf(ctx context.Context) *dialing {
	d, _ := ctx.Value(dialingKey{}).(*dialing)
	return d
}

// dial opens a socket for a base driver.
func dial(ctx context.Context, network, address string, open wire.Open) (net.Conn, error) {
	d := dialingOf(ctx)
	if d == nil {
		return wire.DialCancel(ctx, network, address, open)
	}
	d.serverBegins(ctx)
	s, err := d.Dial(ctx, network, address, open)
	if err != nil {
		return nil, err
	}
	return s, nil
}
