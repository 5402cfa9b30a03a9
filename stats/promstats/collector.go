package promstats

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/stats"
)

// Collector reads all open pools whenever it is scraped. It takes no lock that a checkout takes.
type Collector struct{}

// NewCollector returns a collector for all pools that are open at the time of a scrape. Register one only.
func NewCollector() *Collector { return &Collector{} }

var _ prometheus.Collector = (*Collector)(nil)

// Describe is for the registry.
func (*Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc
	}
}

// Collect is for the registry.
func (*Collector) Collect(ch chan<- prometheus.Metric) {
	for _, pool := range driver.Connectors() {
		s, h := pool.Totals()
		p := &scrape{ch: ch, pool: s.Name, opened: pool.Opened()}
		p.figures(&s)
		p.endpoints(&s, &h)
	}
}

// scrape is what one pool contributes.
type scrape struct {
	ch     chan<- prometheus.Metric
	pool   string
	opened time.Time
}

func (p *scrape) figures(s *stats.Snapshot) {
	p.put(connections, s.CheckedOut, "used")
	p.put(connections, s.CheckedIn, "idle")
	p.put(created, s.TotalConnectionsCreated)
	for reason, n := range s.ClosedBy.All() {
		p.put(closed, n, reason.String())
	}
	p.put(checkouts, s.TotalCheckouts)
	p.put(checkins, s.TotalCheckins)
	p.histogram(useTime, &s.UseTime)
	p.histogram(createTime, &s.CreateTime)
	if s.GovernedBy == stats.GovernedByDriver {
		p.put(size, s.Size)
		if s.MaxOverflow >= 0 {
			p.put(limit, s.Size+s.MaxOverflow)
		}
		p.put(minIdle, s.MinIdle)
		p.put(waiting, s.Waiting)
		p.seconds(standing, s.QueueStanding)
		p.put(newest, s.NewestFirst)
		p.put(dialling, s.Dialling)
		p.put(orphaned, s.OrphanedDials)
		p.seconds(paused, s.Paused)
		p.histogram(waitTime, &s.CheckoutTime)
		p.put(failed, s.CheckoutTimeouts, "timeout")
	}
	p.put(failed, s.FailedCheckouts-s.CheckoutTimeouts, "other")
	p.put(asked, s.CancelsSent)
	p.put(cancels, s.CancelsConfirmed, "confirmed")
	p.put(cancels, s.CancelsTooLate, "too_late")
	p.put(cancels, s.CancelsUnanswered, "unanswered")
	p.put(lost, s.UnknownOutcomes, "outcome_unknown")
	p.put(lost, s.LostTransactions, "tx_lost")
	for _, e := range s.Errors {
		p.put(errorsSeen, e.Count, string(e.Kind), e.Code)
	}
	p.put(leaked, s.LeakedConnections)
	p.put(leaks, s.TotalLeaks)
	p.put(reclaimed, s.ReclaimedConnections)
	p.put(failovers, s.FailoverCount)
	p.put(failbacks, s.FailbackCount)
	p.put(onFirst, number(s.IsPrimary))
}

func (p *scrape) endpoints(s *stats.Snapshot, h *failover.Health) {
	for _, e := range h.Endpoints {
		name := e.Endpoint
		for _, state := range states {
			p.put(endpointState, number(e.State == state), name, string(state))
		}
		p.put(endpointCurrent, number(name == s.Endpoint), name)
		reachable := e.State == failover.Up || e.State == failover.Suspect // of another one there is only what was last known
		if reachable && e.Role != failover.RoleUnknown {
			p.put(endpointWritable, number(e.Role == failover.ReadWrite), name)
		}
		p.put(endpointFenced, number(e.Fenced), name)
		if reachable && e.ReplicationLag >= 0 {
			p.send(prometheus.NewConstMetric(endpointLag.desc, prometheus.GaugeValue, e.ReplicationLag.Seconds(), p.pool, name))
		}
		if e.Timeline > 0 {
			p.put(endpointTimeline, e.Timeline, name)
		}
		p.put(endpointChecks, e.TotalChecks, name)
		p.put(endpointFailedChecks, e.FailedChecks, name)
		if e.TotalChecks > e.FailedChecks {
			p.send(prometheus.NewConstMetric(endpointResponse.desc, prometheus.GaugeValue, e.ResponseTime.Seconds(), p.pool, name))
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

// put sends a value; the labels are those after the pool's name.
func (p *scrape) put(m *metric, value int64, labels ...string) {
	labels = append([]string{p.pool}, labels...)
	if m.counter {
		p.send(prometheus.NewConstMetricWithCreatedTimestamp(m.desc, prometheus.CounterValue, float64(value), p.opened, labels...))
		return
	}
	p.send(prometheus.NewConstMetric(m.desc, prometheus.GaugeValue, float64(value), labels...))
}

func (p *scrape) seconds(m *metric, d time.Duration) {
	p.send(prometheus.NewConstMetric(m.desc, prometheus.GaugeValue, d.Seconds(), p.pool))
}

func (p *scrape) histogram(m *metric, l *stats.Latency) {
	buckets := make(map[float64]uint64, 32)
	var below uint64
	for bound, n := range l.Buckets() {
		below += uint64(n)
		if bound != stats.Longer {
			buckets[bound.Seconds()] = below
		}
	}
	p.send(prometheus.NewConstHistogramWithCreatedTimestamp(m.desc, below, l.Sum.Seconds(), buckets, p.opened, p.pool))
}

func (p *scrape) send(m prometheus.Metric, err error) {
	if err != nil {
		panic(fmt.Sprintf("promstats: %v", err)) // a number of labels that isn't the metric's
	}
	p.ch <- m
}
