package producer_test

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/managedpg/managedpg/stats/otelstats/producer"
)

// The histograms come through the reader: a periodic one with an exporter, in place of this one.
func ExampleNew() {
	reader := metric.NewManualReader(metric.WithProducer(producer.New()))
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
}
