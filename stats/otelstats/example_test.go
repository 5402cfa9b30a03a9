package otelstats_test

import (
	"log"

	"go.opentelemetry.io/otel"

	"github.com/managedpg/managedpg/stats/otelstats"
)

// Once for the program: it sees all pools, those that are opened later too.
func ExampleRegister() {
	registration, err := otelstats.Register(otel.GetMeterProvider())
	if err != nil {
		log.Fatal(err)
	}
	defer registration.Unregister()
}
