// Package evidence says what an error tells of the server that it came from, and has the words in which what follows from it is passed on.
package evidence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/internal/usercode"
)

// Kind is what an error says about an endpoint. What follows from it depends on where it was met: see effectOf in internal/failover.
type Kind int

const (
	// None: no error, or one that says nothing about the endpoint (the caller cancelled).
	None Kind = iota
	// Answered: the server answered with an error of the statement's or the session's own. It is alive.
	Answered
	// Lost: nobody there, or nobody who can serve: refused, unreachable, unresolvable, reset, EOF; SQLSTATE 57P02
	// (crash_shutdown), 57P03 (cannot_connect_now), 08xxx (connection exceptions), 58xxx (system errors).
	Lost
	// Ended: somebody ended the session: 57P01 (admin_shutdown), 57P05 (idle_session_timeout). One terminated session
	// is no dead server.
	Ended
	// TimedOut: a deadline passed. Whose it was must be known elsewhere.
	TimedOut
	// Busy: 53xxx, 53300 (too_many_connections) above all. Alive, with no room now.
	Busy
	// Interrupted: the server answered that it has cut the question short: 57014 (query_canceled), 40001 and 40P01 (a recovery
	// conflict among them), 55P03. It is alive, and that is no answer about anything else.
	Interrupted
	// Refused: alive, and won't have us: 28xxx (authentication), 3D000 (no such database), 57P04 (database dropped),
	// 42501 (no permission), a certificate that doesn't verify.
	Refused
	// WentReadOnly: 25006 (read_only_sql_transaction), which a demoted server says; or a transaction that is meant to
	// be read-only.
	WentReadOnly
	// Local: this process ran out of file descriptors, which says nothing about the endpoint.
	Local
	// Unclear: none of the above.
	Unclear
)

// String is the evidence in a word.
func (k Kind) String() string {
	switch k {
	case None:
		return "none"
	case Answered:
		return "answered"
	case Lost:
		return "lost"
	case Ended:
		return "ended"
	case TimedOut:
		return "timed out"
	case Busy:
		return "busy"
	case Interrupted:
		return "interrupted"
	case Refused:
		return "refused"
	case WentReadOnly:
		return "went read-only"
	case Local:
		return "local"
	default:
		return "unclear"
	}
}

// ErrOurs is found by errors.Is in what we have put in the place of an error when we closed the socket ourselves, and with it the reason.
var (
	ErrOurs   = errors.New("closed on purpose")
	ErrFenced = errors.New("fenced")
	ErrMoved  = errors.New("moved")
	ErrHung   = errors.New("hung")
)

// Of says what an error tells of the endpoint it came from. A server's answer, recognised by its SQLSTATE method
// (pgx's and lib/pq's errors have it), counts before anything else that the error wraps.
func Of(err error) Kind {
	if err == nil {
		return None
	}
	if errors.Is(err, ErrOurs) {
		return None
	}
	var theirs *usercode.Error
	if errors.As(err, &theirs) {
		return None
	}
	if state := sqlstate.Of(err); state != "" {
		return classifyState(state)
	}
	return classifySocket(err)
}

// classifyState goes by PostgreSQL's appendix A, "PostgreSQL Error Codes".
func classifyState(state string) Kind {
	switch state {
	case sqlstate.CrashShutdown, sqlstate.CannotConnectNow:
		return Lost
	case sqlstate.AdminShutdown, sqlstate.IdleSessionTimeout:
		return Ended
	case sqlstate.QueryCanceled, sqlstate.SerializationFailure, sqlstate.DeadlockDetected, sqlstate.LockNotAvailable:
		return Interrupted
	case sqlstate.InvalidCatalogName, sqlstate.DatabaseDropped, sqlstate.InsufficientPrivilege:
		return Refused
	case sqlstate.ReadOnly:
		return WentReadOnly
	}
	switch sqlstate.Class(state) {
	case sqlstate.ClassConnection, sqlstate.ClassSystemError:
		return Lost
	case sqlstate.ClassResources:
		return Busy
	case sqlstate.ClassAuthorization:
		return Refused
	default:
		return Answered
	}
}

func classifySocket(err error) Kind {
	var (
		dns        *net.DNSError
		unknownCA  x509.UnknownAuthorityError
		badName    x509.HostnameError
		badCert    x509.CertificateInvalidError
		unverified *tls.CertificateVerificationError
		alert      tls.AlertError
		record     tls.RecordHeaderError
		netErr     net.Error
	)
	switch {
	case errors.Is(err, context.Canceled):
		return None
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return Local
	case errors.As(err, &dns):
		return Lost
	case errors.As(err, &unknownCA), errors.As(err, &badName), errors.As(err, &badCert),
		errors.As(err, &unverified), errors.As(err, &alert), errors.As(err, &record):
		return Refused
	case errors.Is(err, syscall.ETIMEDOUT): // the system's own verdict, though its Timeout method says true
		return Lost
	case errors.As(err, &netErr) && netErr.Timeout():
		return TimedOut
	case errors.As(err, &netErr), isSocketError(err):
		return Lost
	default:
		return Unclear
	}
}

// isSocketError recognises what a broken socket or an unreachable server comes with, outside net's own errors.
func isSocketError(err error) bool {
	for _, known := range []error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENOENT, // no such unix socket
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// Silence tells a server that says nothing from one that says no: only the former may have calls stuck on it.
func Silence(err error) bool {
	return Of(err) == TimedOut || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) ||
		errors.Is(err, syscall.EHOSTDOWN)
}
