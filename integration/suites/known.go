package main

import "regexp"

// difference is a test that passes without managedpg and not with it, and why that is right.
type difference struct{ suite, policy, test, why string }

// The reasons.
const (
	registered  = "pgx's stdlib keeps what it has registered under a name to itself; Config.PgxConfig takes its place"
	poolOfOurs  = "it counts the server's connections by sql.DB's limits and figures, which are managedpg's with pool_size"
	looksInside = "it looks for the base connection in sql.DB's free list, where none lies with pool_size"
	goesOn      = "the caller's time is over and the pool's dial goes on: it is told its context's own error"
	twoServers  = "of several servers one that can't be reached may come back: managedpg waits for failover_timeout, and says ErrNoEndpoint"
	asksEach    = "its servers count questions as uses; managedpg probes each of several servers"
	aWriter     = "of several servers a writer is wanted unless target_session_attrs says otherwise, and nothing is spread over writers"
	notAnswered = "its server reports its role in the startup and answers no question: managedpg asks, as a pooler repeats old reports, and a server that doesn't say is used"
	otherWords  = "the server isn't of the kind that is wanted: managedpg says ErrNoEndpoint, in words of its own"
	oneAnswer   = "its server gives one answer to any question; managedpg's isn't the one it is meant for, and a server that doesn't tell its role is used"
	sooner      = "a wrong setting is an error of sql.Open already"
	neverTwice  = "the query was sent and may have run: managedpg says ErrOutcomeUnknown, where lib/pq has database/sql send it again"
	inside      = "the base's error stands inside ErrTxLost, where errors.As finds it and a type switch doesn't"
	ourTypes    = "it asserts the type of a driver, connector or transaction, which is managedpg's"
)

// known are the differences that there are to be; docs/suites.md lists them too.
var known = []difference{
	{"pgx/stdlib", "", "TestRegisterConnConfig", registered},
	{"pgx/stdlib", governed, "TestCheckIdleConn", poolOfOurs},
	{"pgx/stdlib", governed, "TestOptionBeforeAfterConnect", poolOfOurs},
	{"pgx/pgconn", "", "TestConnectTimeout/via_context_that_times_out|TestConnectTimeoutStuckOnTLSHandshake/via_context_that_times_out", goesOn},
	{"lib/pq", "", "TestConnectMulti/#03", twoServers},
	{"lib/pq", "", "TestConnectMulti/#0[4569]", asksEach},
	{"lib/pq", "", "TestConnectMulti/load_balance_hosts=random", aWriter},
	{"lib/pq", "", "TestConnectMulti/#0[78]|TestConnectionTargetSessionAttrs/#0[2347]", notAnswered},
	{"lib/pq", "", "TestConnectionTargetSessionAttrs/#08", otherWords},
	{"lib/pq", "", "TestConnectionTargetSessionAttrs/#1[3478]", oneAnswer},
	{"lib/pq", "", "TestProtocolVersion/#(07|08|09|10)", sooner},
	{"lib/pq", "", "TestRuntimeParameters/#0[12]|TestSSLMode/#2[345]|TestSSLRootCA/#0[234]", sooner},
	{"lib/pq", "", "TestUnexpectedEOF", neverTwice},
	{"lib/pq", "", "TestCopyInRespLoopConnectionError", inside},
	{"database/sql", "", "TestOpenConnector|TestOpenDB|TestTxCannotCommitAfterRollback", ourTypes},
	{"database/sql", governed, "TestConnMaxLifetime|TestStmtCloseDeps", poolOfOurs},
	{"database/sql", governed, "TestErrBadConnReconnect|TestManyErrBadConn", looksInside},
	{"database/sql", governed, "TestMultiResultSetQuery|TestParentStmtOutlivesTxStmt|TestQuery|TestQueryContext|TestQueryContextWait", looksInside},
	{"database/sql", governed, "TestQueryNamedArg|TestQueryRowClosingStmt|TestTxStmtClosedRePrepares", looksInside},
	{"database/sql", governed, "TestTxStmtFromTxStmtRePrepares|TestTxStmtPreparedOnce", looksInside},
}

const governed = "by the driver"

// explained says why a test of a suite is to fail in a policy.
func explained(suite, policy, test string) (why string, ok bool) {
	for _, d := range known {
		if d.suite == suite && (d.policy == "" || d.policy == policy) && regexp.MustCompile("^("+d.test+")$").MatchString(test) {
			return d.why, true
		}
	}
	return "", false
}
