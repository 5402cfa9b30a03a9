package web

import (
	"regexp"
	"strings"

	"github.com/managedpg/managedpg/internal/sqlstate"
	"github.com/managedpg/managedpg/stats"
)

// whyNoConnection is why a checkout has failed; "" if its code says nothing.
func whyNoConnection(e stats.ErrorCount) string {
	if e.Kind == stats.ErrorPoolTimeout {
		return "no connection was given back within pool_timeout"
	}
	switch e.Code {
	case sqlstate.TooManyConnections:
		return "the server has no room for one more connection (max_connections, or a limit of the role's or the database's)"
	case sqlstate.InvalidPassword:
		return "the server refuses the password"
	case sqlstate.InvalidCatalogName:
		return "there is no such database"
	case sqlstate.CannotConnectNow:
		return "the server is starting or stopping"
	case "refused":
		return "nobody listens at the server's address"
	case "unreachable":
		return "the network doesn't lead to the server"
	case "dns":
		return "the server's name isn't found"
	case "reset":
		return "the connection was cut while it was being opened"
	case "deadline":
		return "the caller's time was over first"
	}
	if strings.HasPrefix(e.Code, sqlstate.ClassAuthorization) {
		return "the server refuses the user"
	}
	return ""
}

// whyLost is what ended the connection under a call that was lost.
func whyLost(e stats.ErrorCount) string {
	if e.Kind == stats.ErrorReclaimed {
		return "it was held for longer than leak_reclaim_after"
	}
	switch e.Code {
	case sqlstate.AdminShutdown:
		return "an administrator ended the session, or the server shut down (its log says which)"
	case sqlstate.CrashShutdown:
		return "the server crashed (its log says why)"
	case sqlstate.DatabaseDropped:
		return "the database was dropped"
	case sqlstate.IdleInTransactionTimeout:
		return "the server's idle_in_transaction_session_timeout ended the session"
	case sqlstate.TransactionTimeout:
		return "the server's transaction_timeout ended the session"
	case "fenced":
		return "managedpg closed the connection, as its server is fenced: another one is on a newer timeline"
	case "moved":
		return "managedpg closed the connection, as its address leads to a server on a newer timeline now"
	case "hung":
		return "managedpg closed the connection, as its server answered no probe"
	case "sync_wait":
		return "the wait of a COMMIT for its synchronous standby was cut short"
	case "deadline", "canceled":
		return "the context ended, and the server didn't answer the cancel request in time"
	case "reset", "broken", "closed", "other":
		return "the connection was cut, without a word from the server"
	default:
		return "the server ended it with SQLSTATE " + e.Code
	}
}

// dialled are the parts of the base drivers' messages that say where to a dial went, which is said otherwise.
var dialled = regexp.MustCompile("failed to connect to `[^`]*`: |[^ ]+ \\([^ ]+\\): |(dial error|failed to receive message|connect|read|write): |(dial|read|write) (tcp|unix) [^ ]+: ")

// plain is a reason in a few words: "connection refused". The whole of it stands with the endpoint.
func plain(reason string) string { return dialled.ReplaceAllString(reason, "") }
