// Package otelstats publishes the figures of all open pools through OpenTelemetry, by its semantic conventions for
// database client connection pools (version 1.43.0, https://opentelemetry.io/docs/specs/semconv/database/database-metrics/).
//
//	registration, err := otelstats.Register(otel.GetMeterProvider())
//
// What the conventions lack is under managedpg.*: leaks, failovers, health. Pools opened later are seen too. Each counter
// counts from the opening of its pool and knows nothing of ResetStats.
//
// # The histograms
//
// db.client.connection.wait_time, use_time and create_time are histograms, and OpenTelemetry's API has none that is read
// when it is exported: a program would have to call Record at each checkout and each check-in, which costs more than all
// that managedpg does there. But the pool has these histograms, and the SDK takes ready-made ones from a producer. That
// is package [github.com/managedpg/managedpg/stats/otelstats/producer], apart from this one because it needs the SDK:
//
//	reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(producer.New()))
package otelstats

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/stats"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/managedpg/managedpg/stats/otelstats"

// SchemaURL is the version of the semantic conventions.
const SchemaURL = semconv.SchemaURL

// The attributes. Their number of values is bounded by what the program configures. managedpg.errors also has error.type, of at most 100
// values a pool.
const (
	PoolName      = attribute.Key("db.client.connection.pool.name")
	Endpoint      = attribute.Key("managedpg.endpoint.name")
	EndpointState = attribute.Key("managedpg.endpoint.state")
	Reason        = attribute.Key("managedpg.reason") // of managedpg.failed_checkouts, managedpg.connections.closed, managedpg.cancels, managedpg.lost_calls and managedpg.errors
)

// Register makes a provider read all open pools whenever it exports. Do it once for each provider;
// the registration's Unregister ends it.
func Register(provider metric.MeterProvider) (metric.Registration, error) {
	meter := provider.Meter(Scope, metric.WithSchemaURL(SchemaURL))
	in, all, err := newInstruments(meter)
	if err != nil {
		return nil, err
	}
	return meter.RegisterCallback(in.observe, all...)
}

type instruments struct { // More than 15 fields: one for each instrument.
	count    dbconv.ClientConnectionCountObservable
	idleMax  dbconv.ClientConnectionIdleMaxObservable
	idleMin  dbconv.ClientConnectionIdleMinObservable
	most     dbconv.ClientConnectionMaxObservable
	pending  dbconv.ClientConnectionPendingRequestsObservable
	timeouts dbconv.ClientConnectionTimeoutsObservable

	checkouts, failed, created, closed metric.Int64ObservableCounter
	asked, cancels, lost, errors       metric.Int64ObservableCounter
	newest, orphaned                   metric.Int64ObservableCounter
	dialling                           metric.Int64ObservableUpDownCounter
	standing, paused                   metric.Float64ObservableGauge
	leaks, reclaimed                   metric.Int64ObservableCounter
	leaked                             metric.Int64ObservableUpDownCounter
	failovers, failbacks               metric.Int64ObservableCounter
	state, current, writable, fenced   metric.Int64ObservableUpDownCounter
	timeline                           metric.Int64ObservableGauge
	checks, failedChecks               metric.Int64ObservableCounter
	response, lag                      metric.Float64ObservableGauge
}

func newInstruments(meter metric.Meter) (*instruments, []metric.Observable, error) {
	var in instruments
	var all []metric.Observable
	var errs []error
	add := func(o metric.Observable, err error) {
		all, errs = append(all, o), append(errs, err)
	}
	var err error
	// The SDK wants its own instruments, not dbconv's that wrap them.
	in.count, err = dbconv.NewClientConnectionCountObservable(meter)
	add(in.count.Inst(), err)
	in.idleMax, err = dbconv.NewClientConnectionIdleMaxObservable(meter)
	add(in.idleMax.Inst(), err)
	in.idleMin, err = dbconv.NewClientConnectionIdleMinObservable(meter)
	add(in.idleMin.Inst(), err)
	in.most, err = dbconv.NewClientConnectionMaxObservable(meter)
	add(in.most.Inst(), err)
	in.pending, err = dbconv.NewClientConnectionPendingRequestsObservable(meter)
	add(in.pending.Inst(), err)
	in.timeouts, err = dbconv.NewClientConnectionTimeoutsObservable(meter)
	add(in.timeouts.Inst(), err)

	counter := func(name, unit, help string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter("managedpg."+name, metric.WithUnit(unit), metric.WithDescription(help))
		add(c, err)
		return c
	}
	upDown := func(name, unit, help string) metric.Int64ObservableUpDownCounter {
		c, err := meter.Int64ObservableUpDownCounter("managedpg."+name, metric.WithUnit(unit), metric.WithDescription(help))
		add(c, err)
		return c
	}
	in.checkouts = counter("checkouts", "{checkout}", "Connections that were checked out.")
	in.failed = counter("failed_checkouts", "{checkout}", "Checkouts that got no connection, by reason: timeout, other.")
	in.created = counter("connections.created", "{connection}", "Connections that were opened.")
	in.closed = counter("connections.closed", "{connection}", "Connections that were closed, by reason.")
	in.newest = counter("newest_first", "{checkout}", "Checkouts that were served before others who had waited longer, as the queue stood.")
	in.orphaned = counter("orphaned_dials", "{connection}", "Dials that succeeded when whoever they were begun for had gone.")
	in.dialling = upDown("dials", "{connection}", "Dials under way.")
	in.standing, err = meter.Float64ObservableGauge("managedpg.queue_standing", metric.WithUnit("s"),
		metric.WithDescription("For how long the queue has stood, so that the newest are served first; 0: it drains."))
	add(in.standing, err)
	in.paused, err = meter.Float64ObservableGauge("managedpg.paused", metric.WithUnit("s"),
		metric.WithDescription("For how long Pause has been in force; 0: it isn't."))
	add(in.paused, err)
	in.asked = counter("cancels.sent", "{call}", "Calls whose context ended while the server was at them, so that it was asked to cancel them.")
	in.cancels = counter("cancels", "{call}", "What became of them, by reason: confirmed, too_late, unanswered.")
	in.lost = counter("lost_calls", "{call}", "Calls whose connection was lost, by reason: outcome_unknown, tx_lost.")
	in.errors = counter("errors", "{error}", "Errors of checkouts, dials and calls by kind (reason) and SQLSTATE or cause (error.type); those that come with rows are not seen.")
	in.leaks = counter("leaks", "{leak}", "Checkouts that were reported as leaks.")
	in.leaked = upDown("leaked_connections", "{connection}", "Connections that have been held for longer than leak_threshold now.")
	in.reclaimed = counter("reclaimed_connections", "{connection}", "Leaked connections that were taken back.")
	in.failovers = counter("failovers", "{failover}", "Moves to a worse endpoint because the better one could not be used.")
	in.failbacks = counter("failbacks", "{failback}", "Moves back to a better endpoint.")
	in.state = upDown("endpoint.status", "1", "1 for the state that the endpoint is in, 0 for the others.")
	in.current = upDown("endpoint.current", "1", "1 for the endpoint that new connections go to.")
	in.writable = upDown("endpoint.writable", "1", "1 for a server that accepts writes, 0 for a read-only one; absent: unknown, or it is down.")
	in.fenced = upDown("endpoint.fenced", "1", "1 for a server that is not written to, as another one is on a newer timeline.")
	in.checks = counter("endpoint.checks", "{check}", "Health checks of the endpoint.")
	in.failedChecks = counter("endpoint.failed_checks", "{check}", "Health checks of the endpoint that failed.")
	in.timeline, err = meter.Int64ObservableGauge("managedpg.endpoint.timeline", metric.WithUnit("1"),
		metric.WithDescription("The server's WAL timeline; absent: unknown."))
	add(in.timeline, err)
	in.response, err = meter.Float64ObservableGauge("managedpg.endpoint.response_time", metric.WithUnit("s"),
		metric.WithDescription("What the last successful health check took."))
	add(in.response, err)
	in.lag, err = meter.Float64ObservableGauge("managedpg.endpoint.replication_lag", metric.WithUnit("s"),
		metric.WithDescription("How far a standby's replay is behind; absent: unknown, or it is down."))
	add(in.lag, err)
	return &in, all, errors.Join(errs...)
}

func (in *instruments) observe(_ context.Context, o metric.Observer) error {
	for _, pool := range driver.Connectors() {
		s, h := pool.Totals()
		in.figures(o, &s)
		in.endpoints(o, &s, &h)
	}
	return nil
}

func (in *instruments) figures(o metric.Observer, s *stats.Snapshot) {
	pool := PoolName.String(s.Name)
	just := with(pool)
	o.ObserveInt64(in.count.Inst(), s.CheckedOut, with(pool, in.count.AttrClientConnectionState(dbconv.ClientConnectionStateUsed)))
	o.ObserveInt64(in.count.Inst(), s.CheckedIn, with(pool, in.count.AttrClientConnectionState(dbconv.ClientConnectionStateIdle)))
	o.ObserveInt64(in.failed, s.FailedCheckouts-s.CheckoutTimeouts, with(pool, Reason.String("other")))
	// What only database/sql knows when it governs is left out.
	if s.GovernedBy == stats.GovernedByDriver {
		o.ObserveInt64(in.idleMax.Inst(), s.Size, just)
		o.ObserveInt64(in.idleMin.Inst(), s.MinIdle, just)
		if s.MaxOverflow >= 0 {
			o.ObserveInt64(in.most.Inst(), s.Size+s.MaxOverflow, just)
		}
		o.ObserveInt64(in.pending.Inst(), s.Waiting, just)
		o.ObserveInt64(in.newest, s.NewestFirst, just)
		o.ObserveInt64(in.orphaned, s.OrphanedDials, just)
		o.ObserveInt64(in.dialling, s.Dialling, just)
		o.ObserveFloat64(in.standing, s.QueueStanding.Seconds(), just)
		o.ObserveFloat64(in.paused, s.Paused.Seconds(), just)
		o.ObserveInt64(in.timeouts.Inst(), s.CheckoutTimeouts, just)
		o.ObserveInt64(in.failed, s.CheckoutTimeouts, with(pool, Reason.String("timeout")))
	}
	o.ObserveInt64(in.checkouts, s.TotalCheckouts, just)
	o.ObserveInt64(in.created, s.TotalConnectionsCreated, just)
	for reason, n := range s.ClosedBy.All() {
		o.ObserveInt64(in.closed, n, with(pool, Reason.String(reason.String())))
	}
	o.ObserveInt64(in.asked, s.CancelsSent, just)
	o.ObserveInt64(in.cancels, s.CancelsConfirmed, with(pool, Reason.String("confirmed")))
	o.ObserveInt64(in.cancels, s.CancelsTooLate, with(pool, Reason.String("too_late")))
	o.ObserveInt64(in.cancels, s.CancelsUnanswered, with(pool, Reason.String("unanswered")))
	o.ObserveInt64(in.lost, s.UnknownOutcomes, with(pool, Reason.String("outcome_unknown")))
	o.ObserveInt64(in.lost, s.LostTransactions, with(pool, Reason.String("tx_lost")))
	for _, e := range s.Errors {
		o.ObserveInt64(in.errors, e.Count, with(pool, Reason.String(string(e.Kind)), semconv.ErrorTypeKey.String(e.Code)))
	}
	o.ObserveInt64(in.leaks, s.TotalLeaks, just)
	o.ObserveInt64(in.leaked, s.LeakedConnections, just)
	o.ObserveInt64(in.reclaimed, s.ReclaimedConnections, just)
	o.ObserveInt64(in.failovers, s.FailoverCount, just)
	o.ObserveInt64(in.failbacks, s.FailbackCount, just)
}

func (in *instruments) endpoints(o metric.Observer, s *stats.Snapshot, h *failover.Health) {
	for _, e := range h.Endpoints {
		pool, name := PoolName.String(s.Name), Endpoint.String(e.Endpoint)
		both := with(pool, name)
		for _, state := range states {
			o.ObserveInt64(in.state, number(e.State == state), with(pool, name, EndpointState.String(string(state))))
		}
		o.ObserveInt64(in.current, number(e.Endpoint == s.Endpoint), both)
		reachable := e.State == failover.Up || e.State == failover.Suspect // of another one there is only what was last known
		if reachable && e.Role != failover.RoleUnknown {
			o.ObserveInt64(in.writable, number(e.Role == failover.ReadWrite), both)
		}
		o.ObserveInt64(in.fenced, number(e.Fenced), both)
		if reachable && e.ReplicationLag >= 0 {
			o.ObserveFloat64(in.lag, e.ReplicationLag.Seconds(), both)
		}
		if e.Timeline > 0 {
			o.ObserveInt64(in.timeline, e.Timeline, both)
		}
		o.ObserveInt64(in.checks, e.TotalChecks, both)
		o.ObserveInt64(in.failedChecks, e.FailedChecks, both)
		if e.TotalChecks > e.FailedChecks {
			o.ObserveFloat64(in.response, e.ResponseTime.Seconds(), both)
		}
	}
}

var states = []failover.State{failover.Unknown, failover.Up, failover.Suspect, failover.Down, failover.Misconfigured}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func with(attributes ...attribute.KeyValue) metric.ObserveOption {
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}
