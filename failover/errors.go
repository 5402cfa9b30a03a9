package failover

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/multierr"

	"github.com/managedpg/managedpg/internal/evidence"
)

// ErrNoEndpoint: no endpoint could be used within the checkout's budget. See [NoEndpointError].
var ErrNoEndpoint = errors.New("managedpg: no usable endpoint")

// NoEndpointError says of each endpoint why it could not be used. errors.Is finds ErrNoEndpoint in it, the context's
// error when that ended the wait, and what the endpoints said, so that errors.As finds a server's answer.
type NoEndpointError struct {
	// Pool is the pool's name.
	Pool string
	// Waited is how long the checkout tried.
	Waited time.Duration
	// Endpoints has an entry for each endpoint, in configured order.
	Endpoints []EndpointError
	// Err is the context's error if it ended the wait, else nil.
	Err error
}

// EndpointError is why one endpoint could not be used.
type EndpointError struct {
	// Endpoint is its host:port/dbname.
	Endpoint string
	State    State
	// Reason says it in words, without secrets: what a dial or probe last met, or why it isn't eligible.
	Reason string
	// Err is what a dial or probe last met; nil when it answers but isn't eligible.
	Err error
}

func (e *NoEndpointError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "managedpg: pool %q: no usable endpoint within %v", e.Pool, e.Waited.Round(time.Millisecond))
	if e.Err != nil {
		fmt.Fprintf(&b, ", %v", e.Err)
	}
	for i := range e.Endpoints {
		sep := "; "
		if i == 0 {
			sep = " ("
		}
		b.WriteString(sep + e.Endpoints[i].Error())
	}
	if len(e.Endpoints) > 0 {
		b.WriteString(")")
	}
	return b.String()
}

// Unwrap gives ErrNoEndpoint, the context's error if any, and the endpoints' errors combined by multierr.
func (e *NoEndpointError) Unwrap() []error {
	errs := []error{ErrNoEndpoint}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	var all error
	for i := range e.Endpoints {
		all = multierr.Append(all, &e.Endpoints[i])
	}
	if all != nil {
		errs = append(errs, all)
	}
	return errs
}

func (e *EndpointError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.Endpoint, e.State, e.Reason)
}

// Unwrap hides a context's error: that a probe or a dial ran into a limit of ours must not read as if the caller's
// deadline had passed. It hides driver.ErrBadConn too, for which database/sql would wait all over again.
func (e *EndpointError) Unwrap() error {
	if of := evidence.Of(e.Err); of == evidence.TimedOut || of == evidence.None || errors.Is(e.Err, driver.ErrBadConn) {
		return nil
	}
	return e.Err
}

// DropError is the reason that connections of an endpoint had to go, and what a call gets whose socket was closed for it.
// It is no evidence about the endpoint.
type DropError struct {
	// Endpoint is its host:port/dbname.
	Endpoint string
	// Kind is why.
	Kind DropKind
	// Detail says it in words, without secrets.
	Detail string
}

// DropKind is why connections of an endpoint had to go.
type DropKind string

const (
	// Fenced: another server of the same system is on a newer timeline.
	Fenced DropKind = "fenced"
	// Moved: the address now leads to a server on a newer timeline, so connections made before lead to an old one.
	Moved DropKind = "moved"
	// Hung: two probes were not answered.
	Hung DropKind = "hung"
)

func (e *DropError) Error() string {
	return fmt.Sprintf("managedpg: connection to %s closed, %s: %s", e.Endpoint, e.Kind, e.Detail)
}

// Is finds evidence.ErrOurs in it, and its kind's: errors.Is is how the rest of managedpg knows that the server hasn't said this.
func (e *DropError) Is(target error) bool {
	switch target {
	case evidence.ErrOurs:
		return true
	case evidence.ErrFenced:
		return e.Kind == Fenced
	case evidence.ErrMoved:
		return e.Kind == Moved
	case evidence.ErrHung:
		return e.Kind == Hung
	default:
		return false
	}
}
