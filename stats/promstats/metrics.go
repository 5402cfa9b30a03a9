package promstats

import "github.com/prometheus/client_golang/prometheus"

// metric is one that is published. All have the label pool, and more where more are given.
type metric struct {
	desc    *prometheus.Desc
	counter bool
}

// metrics are all of them. Those marked with * are there only when the driver governs the pool (pool_size is set):
// otherwise database/sql alone knows them, and client_golang's collectors.NewDBStatsCollector has them.
var metrics []*metric

var (
	connections = gauge("pool_connections", "Open connections: used ones are checked out, idle ones are free.", "state")
	size        = gauge("pool_size", "Connections that are kept (pool_size).")                                                                 // *
	limit       = gauge("pool_max_connections", "Most connections that may be open (pool_size + max_overflow); absent: no limit.")             // *
	minIdle     = gauge("pool_min_idle_connections", "Idle connections that are kept ready (pool_min_idle).")                                  // *
	waiting     = gauge("pool_waiting_checkouts", "Checkouts that wait for a connection now.")                                                 // *
	standing    = gauge("pool_queue_standing_seconds", "For how long the queue has stood, so that the newest are served first; 0: it drains.") // *
	dialling    = gauge("pool_dials", "Dials under way.")                                                                                      // *
	paused      = gauge("pool_paused_seconds", "For how long Pause has been in force; 0: it isn't.")                                           // *
	leaked      = gauge("pool_leaked_connections", "Connections that have been held for longer than leak_threshold now.")

	checkouts  = counter("pool_checkouts_total", "Connections that were checked out.")
	checkins   = counter("pool_checkins_total", "Connections that were given back.")
	failed     = counter("pool_failed_checkouts_total", "Checkouts that got no connection. timeout: pool_timeout had passed.", "reason")
	created    = counter("pool_connections_created_total", "Connections that were opened.")
	closed     = counter("pool_connections_closed_total", "Connections that were closed, by reason.", "reason")
	newest     = counter("pool_newest_first_total", "Checkouts that were served before others who had waited longer, as the queue stood.") // *
	orphaned   = counter("pool_orphaned_dials_total", "Dials that succeeded when whoever they were begun for had gone.")                   // *
	asked      = counter("pool_cancels_sent_total", "Calls whose context ended while the server was at them, so that it was asked to cancel them.")
	cancels    = counter("pool_cancels_total", "What became of them. confirmed: the server said so. too_late: it had finished before. unanswered: no answer within cancel_timeout, and the connection was given up.", "reason")
	lost       = counter("pool_lost_calls_total", "Calls whose connection was lost. outcome_unknown: nobody knows whether they ran (ErrOutcomeUnknown). tx_lost: their transaction was rolled back (ErrTxLost).", "reason")
	errorsSeen = counter("pool_errors_total", "Errors of checkouts, dials and calls by kind (reason) and SQLSTATE or cause (code); those that come with rows are not seen.", "reason", "code")
	leaks      = counter("pool_leaks_total", "Checkouts that were reported as leaks.")
	reclaimed  = counter("pool_reclaimed_connections_total", "Leaked connections that were taken back (leak_reclaim_after).")

	waitTime   = histogram("pool_checkout_wait_seconds", "From asking for a connection to having it.") // *
	useTime    = histogram("pool_connection_use_seconds", "From having a connection to giving it back.")
	createTime = histogram("pool_connection_create_seconds", "From dialling to a usable connection.")

	failovers = counter("pool_failovers_total", "Moves to a worse endpoint because the better one could not be used.")
	failbacks = counter("pool_failbacks_total", "Moves back to a better endpoint.")
	onFirst   = gauge("pool_on_first_endpoint", "1 while new connections go to the first of the configured endpoints.")

	endpointState        = gauge("endpoint_state", "1 for the state that the endpoint is in, 0 for the others.", "endpoint", "state")
	endpointCurrent      = gauge("endpoint_current", "1 for the endpoint that new connections go to.", "endpoint")
	endpointWritable     = gauge("endpoint_writable", "1 for a server that accepts writes, 0 for a read-only one; absent: unknown, or it is down.", "endpoint")
	endpointFenced       = gauge("endpoint_fenced", "1 for a server that is not written to, as another one is on a newer timeline.", "endpoint")
	endpointLag          = gauge("endpoint_replication_lag_seconds", "How far a standby's replay is behind; absent: unknown, or it is down.", "endpoint")
	endpointTimeline     = gauge("endpoint_timeline", "The server's WAL timeline; absent: unknown.", "endpoint")
	endpointChecks       = counter("endpoint_checks_total", "Health checks of the endpoint.", "endpoint")
	endpointFailedChecks = counter("endpoint_failed_checks_total", "Health checks of the endpoint that failed.", "endpoint")
	endpointResponse     = gauge("endpoint_response_seconds", "What the last successful health check took.", "endpoint")
)

func gauge(name, help string, labels ...string) *metric { return add(name, help, false, labels) }

func counter(name, help string, labels ...string) *metric { return add(name, help, true, labels) }

func histogram(name, help string) *metric { return add(name, help, false, nil) }

func add(name, help string, counter bool, labels []string) *metric {
	labels = append([]string{"pool"}, labels...)
	m := &metric{prometheus.NewDesc("managedpg_"+name, help, labels, nil), counter}
	metrics = append(metrics, m)
	return m
}
