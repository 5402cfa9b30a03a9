// Package sqlstate has what is known of SQLSTATEs: those of PostgreSQL's appendix A, "PostgreSQL Error Codes", that
// decide something here. What they decide is their reader's business,
// and it knows no driver.
package sqlstate

import "errors"

// SQLSTATEs, by their names in the appendix.
const (
	FeatureNotSupported      = "0A000" // among others "cached plan must not change result type"
	InvalidParameter         = "22023" // of pg_xact_status: the id was not given out yet
	ReadOnly                 = "25006" // read_only_sql_transaction
	InFailedTransaction      = "25P02"
	IdleInTransactionTimeout = "25P03"
	TransactionTimeout       = "25P04"
	InvalidStatementName     = "26000" // the prepared statement is gone
	InvalidCatalogName       = "3D000" // no such database
	InvalidPassword          = "28P01"
	SerializationFailure     = "40001"
	DeadlockDetected         = "40P01"
	InsufficientPrivilege    = "42501"
	TooManyConnections       = "53300"
	LockNotAvailable         = "55P03"
	QueryCanceled            = "57014"
	AdminShutdown            = "57P01" // pg_terminate_backend's too
	CrashShutdown            = "57P02"
	CannotConnectNow         = "57P03" // it starts, stops or recovers
	DatabaseDropped          = "57P04"
	IdleSessionTimeout       = "57P05"
)

// The first two characters of a SQLSTATE are its class.
const (
	ClassConnection     = "08"
	ClassNotSupported   = "0A"
	ClassAuthorization  = "28"
	ClassInvalidSchema  = "3F"
	ClassSyntaxOrAccess = "42"
	ClassResources      = "53"
	ClassSystemError    = "58" // of the server's operating system
)

// Of is the SQLSTATE of a server's answer, recognised by its SQLState method (pgx's and lib/pq's errors have it); "" if err
// holds none.
func Of(err error) string {
	var answer interface{ SQLState() string }
	if !errors.As(err, &answer) {
		return ""
	}
	return answer.SQLState()
}

// Class is that of a SQLSTATE.
func Class(state string) string { return state[:min(2, len(state))] }

// Lacks says of a SQLSTATE that the server has no such function, or not for us: that will not change.
func Lacks(state string) bool {
	switch Class(state) {
	case ClassSyntaxOrAccess, ClassNotSupported, ClassInvalidSchema:
		return true
	default:
		return false
	}
}

// OfTheCall says that an error is of what a statement was called with or met, and not of the statement itself: by its class.
func OfTheCall(state string) bool {
	if len(state) < 2 {
		return false
	}
	switch state[:2] {
	case "22", "23", "40", "44", "53", "55", "57", "P0": // data, constraints, rollbacks, resources, locks, cancels and shutdowns, PL/pgSQL's RAISE
		return true
	default:
		return false
	}
}

// EndsSession says whether a server's answer ended the session: by its severity, and where that is in the server's language by its
// SQLSTATE: those of the shutdowns and of the timeouts of sessions and transactions.
func EndsSession(severity, state string) bool {
	switch severity {
	case "ERROR":
		return false
	case "FATAL", "PANIC":
		return true
	}
	switch state {
	case AdminShutdown, CrashShutdown, CannotConnectNow, DatabaseDropped, IdleSessionTimeout, IdleInTransactionTimeout, TransactionTimeout:
		return true
	default:
		return false
	}
}

// ErrSyncWait is what a COMMIT is told whose wait for a synchronous standby was cancelled: the server has warned, and answered it.
var ErrSyncWait = errors.New("committed on this server, but the wait for its synchronous standby was cancelled")
