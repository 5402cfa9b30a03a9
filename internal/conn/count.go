package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/managedpg/managedpg/internal/evidence"
	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/stats"
)

// countFailed counts a checkout that got no connection.
func (p *Pool) countFailed(err error) {
	timeout := errors.Is(err, ErrPoolTimeout)
	p.Recorder.CheckoutFailed(timeout)
	if timeout {
		p.Recorder.CountError(stats.ErrorPoolTimeout, "timeout")
	} else {
		p.Recorder.CountError(stats.ErrorCheckout, errorCode(err))
	}
}

// countError counts what a call was told.
func (p *Pool) countError(ctx context.Context, err error) {
	code := errorCode(err)
	if (code == "deadline" || code == sqlstate.QueryCanceled) && p.opts.Leaks != nil {
		p.opts.Leaks.TimedOut(ctx)
	}
	lost, isLost := err.(*LostError)
	if isLost && code == "other" {
		code = "broken"
	}
	switch {
	case isLost && lost.Kind == ErrOutcomeUnknown:
		p.Recorder.CountLost(stats.LostOutcome)
		p.Recorder.CountError(stats.ErrorOutcomeUnknown, code)
	case isLost:
		p.Recorder.CountLost(stats.LostTx)
		p.Recorder.CountError(stats.ErrorTxLost, code)
	case errors.Is(err, ErrReclaimed):
		p.Recorder.CountError(stats.ErrorReclaimed, code)
	case err == driver.ErrSkip, err == driver.ErrBadConn: // database/sql goes on otherwise
	default:
		p.Recorder.CountError(stats.ErrorStatement, code)
	}
}

// errorCode says what an error was, without its text: see [stats.ErrorCount].
func errorCode(err error) string {
	if state := sqlstate.Of(err); state != "" && !(state == sqlstate.QueryCanceled && errors.Is(err, context.Canceled)) {
		return state
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, evidence.ErrFenced):
		return "fenced"
	case errors.Is(err, evidence.ErrMoved):
		return "moved"
	case errors.Is(err, evidence.ErrHung):
		return "hung"
	case errors.Is(err, sqlstate.ErrSyncWait):
		return "sync_wait"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.As(err, &dns):
		return "dns"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "deadline"
	case errors.Is(err, ErrClosed), errors.Is(err, net.ErrClosed):
		return "closed"
	default:
		return "other"
	}
}
