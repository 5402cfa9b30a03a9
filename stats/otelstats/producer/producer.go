// Package producer hands the histograms of all open pools to OpenTelemetry's SDK: db.client.connection.wait_time, use_time
// and create_time. The rest comes from [otelstats.Register].
//
//	reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(producer.New()))
//
// The pools have these histograms anyway and they are copied when they are exported, so a checkout pays nothing. What that
// excludes is what the SDK does to its own: views don't apply, the bounds of the buckets are the powers of two from 16 µs
// to 69 s, and temporality is cumulative, whatever the exporter prefers.
package producer

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/stats"
	"github.com/managedpg/managedpg/stats/otelstats"
)

type producer struct{}

// New returns a producer for all pools that are open at the time of an export.
func New() metric.Producer { return producer{} }

// Produce is for the SDK.
func (producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	now := time.Now()
	wait := newHistogram(dbconv.ClientConnectionWaitTime{})
	use := newHistogram(dbconv.ClientConnectionUseTime{})
	create := newHistogram(dbconv.ClientConnectionCreateTime{})
	for _, pool := range driver.Connectors() {
		s, _ := pool.Totals()
		set := attribute.NewSet(otelstats.PoolName.String(s.Name))
		if s.GovernedBy == stats.GovernedByDriver {
			wait.add(&s.CheckoutTime, set, pool.Opened(), now)
		}
		use.add(&s.UseTime, set, pool.Opened(), now)
		create.add(&s.CreateTime, set, pool.Opened(), now)
	}
	scope := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: otelstats.Scope, SchemaURL: otelstats.SchemaURL}}
	for _, h := range []*histogram{wait, use, create} {
		if len(h.data.DataPoints) > 0 {
			scope.Metrics = append(scope.Metrics, metricdata.Metrics{
				Name: h.Name(), Description: h.Description(), Unit: h.Unit(), Data: h.data,
			})
		}
	}
	if len(scope.Metrics) == 0 {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{scope}, nil
}

// convention is what the semantic conventions say of a metric.
type convention interface {
	Name() string
	Unit() string
	Description() string
}

type histogram struct {
	convention
	data metricdata.Histogram[float64]
}

func newHistogram(c convention) *histogram {
	return &histogram{c, metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}}
}

func (h *histogram) add(l *stats.Latency, set attribute.Set, opened, now time.Time) {
	point := metricdata.HistogramDataPoint[float64]{Attributes: set, StartTime: opened, Time: now, Sum: l.Sum.Seconds()}
	for bound, n := range l.Buckets() {
		if bound != stats.Longer {
			point.Bounds = append(point.Bounds, bound.Seconds())
		}
		point.BucketCounts = append(point.BucketCounts, uint64(n))
		point.Count += uint64(n)
	}
	h.data.DataPoints = append(h.data.DataPoints, point)
}
