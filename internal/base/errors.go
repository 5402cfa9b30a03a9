package base

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg/internal/sqlstate"
)

// Severity is that of a server's answer: "ERROR" leaves the session alive, "FATAL" and "PANIC" end it. lib/pq knows it in the
// server's language only (lc_messages).
func Severity(err error) string {
	var pgErr *pgconn.PgError
	var pqErr *pq.Error
	switch {
	case errors.As(err, &pgErr) && pgErr.SeverityUnlocalized != "":
		return pgErr.SeverityUnlocalized
	case errors.As(err, &pgErr):
		return pgErr.Severity
	case errors.As(err, &pqErr):
		return pqErr.Severity
	default:
		return ""
	}
}

// EndsSession says whether err is a server's answer that ended the session.
func EndsSession(err error) bool { return sqlstate.EndsSession(Severity(err), sqlstate.Of(err)) }

// EndedError is a call or a dial that its context ended after the server had been told, and what the server answered or the driver
// said: that and the context's error in one.
type EndedError struct {
	Err, Ctx error
	Deadline error // the driver's own error of a deadline, by which pgconn.Timeout knows it; nil if there is none
}

func (e *EndedError) Error() string { return fmt.Sprintf("%v: %v", e.Ctx, e.Err) }

func (e *EndedError) Unwrap() []error {
	if e.Deadline == nil {
		return []error{e.Ctx, e.Err}
	}
	return []error{e.Ctx, e.Err, e.Deadline}
}

// SafeToRetry is for pgconn.SafeToRetry, which means calls of which nothing was sent.
func (e *EndedError) SafeToRetry() bool { return false }
