// Package promstats publishes the figures of all open pools to Prometheus.
//
//	prometheus.MustRegister(promstats.NewCollector())
//
// Pools opened later are seen too, and a closed one's series end. Each counter counts from the opening of its pool and
// knows nothing of ResetStats. The labels are pool, endpoint, state, reason and code, and nothing else: their number of values
// is bounded by what the program configures, and that of code by 100 a pool. The names differ from those of client_golang's own
// collectors.NewDBStatsCollector (go_sql_*), so the two work side by side; metrics.go lists them.
package promstats
