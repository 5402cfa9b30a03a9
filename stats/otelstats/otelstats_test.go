package otelstats_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"database/sql"

	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/otelstats"
	"github.com/managedpg/managedpg/stats/otelstats/producer"
)

func TestMain(m *testing.M) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(pgtest.Suite(m))
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// reader is the SDK with both of our sources, read by hand.
func reader(t *testing.T) *sdk.ManualReader {
	t.Helper()
	r := sdk.NewManualReader(sdk.WithProducer(producer.New()))
	provider := sdk.NewMeterProvider(sdk.WithReader(r))
	registration, err := otelstats.Register(provider)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registration.Unregister(); err != nil {
			t.Error(err)
		}
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func read(t *testing.T, r *sdk.ManualReader) map[string]metricdata.Metrics {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := r.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	all := map[string]metricdata.Metrics{}
	for _, s := range rm.ScopeMetrics {
		if s.Scope.Name != otelstats.Scope || s.Scope.SchemaURL != "https://opentelemetry.io/schemas/1.43.0" {
			t.Errorf("scope %+v", s.Scope)
		}
		for _, m := range s.Metrics {
			if _, twice := all[m.Name]; twice {
				t.Errorf("%s is there twice", m.Name)
			}
			all[m.Name] = m
		}
	}
	return all
}

// values are those of a metric by their attributes, those of a histogram its counts.
func values(m metricdata.Metrics) map[string]float64 {
	v := map[string]float64{}
	key := func(s attribute.Set) string { return s.Encoded(attribute.DefaultEncoder()) }
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			v[key(p.Attributes)] = float64(p.Value)
		}
	case metricdata.Gauge[int64]:
		for _, p := range data.DataPoints {
			v[key(p.Attributes)] = float64(p.Value)
		}
	case metricdata.Gauge[float64]:
		for _, p := range data.DataPoints {
			v[key(p.Attributes)] = p.Value
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			v[key(p.Attributes)] = float64(p.Count)
		}
	}
	return v
}

// kind is the instrument as the semantic conventions name it.
func kind(m metricdata.Metrics) string {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		if data.IsMonotonic {
			return "Counter"
		}
		return "UpDownCounter"
	case metricdata.Histogram[float64]:
		return "Histogram"
	}
	return "Gauge"
}

// TestSemanticConventions holds what arrives against the text of the conventions, written out here once more: names,
// instruments, units and attributes of https://opentelemetry.io/docs/specs/semconv/database/database-metrics/.
func TestSemanticConventions(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_name=orders&pool_size=2&max_overflow=1&pool_timeout=10ms&pool_min_idle=1")
	open(t, pgtest.Database(t)+"&pool_name=plain")
	ctx := context.Background()
	for range 3 {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if _, err := db.Conn(ctx); !errors.Is(err, managedpg.ErrPoolTimeout) {
		t.Fatal(err)
	}
	orders, plain := "db.client.connection.pool.name=orders", "db.client.connection.pool.name=plain"
	used, idle := ",db.client.connection.state=used", ",db.client.connection.state=idle"
	want := []struct {
		name, kind, unit string
		values           map[string]float64
	}{
		{"count", "UpDownCounter", "{connection}", map[string]float64{orders + used: 3, orders + idle: 0, plain + used: 0, plain + idle: 0}},
		{"idle.max", "UpDownCounter", "{connection}", map[string]float64{orders: 2}},
		{"idle.min", "UpDownCounter", "{connection}", map[string]float64{orders: 1}},
		{"max", "UpDownCounter", "{connection}", map[string]float64{orders: 3}},
		{"pending_requests", "UpDownCounter", "{request}", map[string]float64{orders: 0}},
		{"timeouts", "Counter", "{timeout}", map[string]float64{orders: 1}},
		{"create_time", "Histogram", "s", map[string]float64{orders: 3, plain: 0}},
		{"wait_time", "Histogram", "s", map[string]float64{orders: 3}},
		{"use_time", "Histogram", "s", map[string]float64{orders: 0, plain: 0}},
	}
	all := read(t, reader(t))
	for _, w := range want {
		m, ok := all["db.client.connection."+w.name]
		if !ok {
			t.Errorf("%s is missing", w.name)
			continue
		}
		if kind(m) != w.kind || m.Unit != w.unit || m.Description == "" {
			t.Errorf("%s is a %s in %s (%q), want a %s in %s", w.name, kind(m), m.Unit, m.Description, w.kind, w.unit)
		}
		if got := values(m); !maps.Equal(got, w.values) {
			t.Errorf("%s: %v, want %v", w.name, got, w.values)
		}
	}
	for name := range all {
		if rest, ok := strings.CutPrefix(name, "db.client.connection."); ok {
			if !slices.ContainsFunc(want, func(w struct {
				name, kind, unit string
				values           map[string]float64
			}) bool {
				return w.name == rest
			}) {
				t.Errorf("%s is not in the conventions", name)
			}
		} else if !strings.HasPrefix(name, "managedpg.") {
			t.Errorf("%s is neither the conventions' nor ours", name)
		}
	}
}

func TestOurs(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_name=orders&pool_size=2")
	pool, _ := managedpg.PoolOf(db)
	for range 3 {
		if err := db.Ping(); err != nil {
			t.Fatal(err)
		}
	}
	pool.CheckNow(context.Background())
	pool.ResetStats()
	pool.Drain()
	r := reader(t)
	all := read(t, r)
	orders := "db.client.connection.pool.name=orders"
	endpoint := orders + ",managedpg.endpoint.name=" + strings.ReplaceAll(pool.Stats().Endpoint, "=", "\\=")
	for name, want := range map[string]map[string]float64{
		"checkouts":           {orders: 3},
		"failed_checkouts":    {orders + ",managedpg.reason=timeout": 0, orders + ",managedpg.reason=other": 0},
		"connections.created": {orders: 1},
		"cancels.sent":        {orders: 0},
		"lost_calls":          {orders + ",managedpg.reason=outcome_unknown": 0, orders + ",managedpg.reason=tx_lost": 0},
		"leaks":               {orders: 0}, "leaked_connections": {orders: 0}, "reclaimed_connections": {orders: 0},
		"failovers": {orders: 0}, "failbacks": {orders: 0},
		"endpoint.current":  {endpoint: 1},
		"endpoint.writable": {endpoint: 1}, "endpoint.fenced": {endpoint: 0}, "endpoint.timeline": {endpoint: 1},
		"endpoint.failed_checks": {endpoint: 0},
		"endpoint.status": {endpoint + ",managedpg.endpoint.state=unknown": 0, endpoint + ",managedpg.endpoint.state=up": 1,
			endpoint + ",managedpg.endpoint.state=suspect": 0, endpoint + ",managedpg.endpoint.state=down": 0,
			endpoint + ",managedpg.endpoint.state=misconfigured": 0},
	} {
		if got := values(all["managedpg."+name]); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := values(all["managedpg.connections.closed"])[orders+",managedpg.reason=drain"]; got != 1 {
		t.Errorf("%v closed by Drain, want 1", got)
	}
	for _, name := range []string{"endpoint.checks", "endpoint.response_time"} {
		if got := values(all["managedpg."+name])[endpoint]; got <= 0 {
			t.Errorf("%s is %v", name, got)
		}
	}
	if _, err := db.Exec("SELECT 1/0"); err == nil {
		t.Fatal("no error")
	}
	if got := values(read(t, r)["managedpg.errors"]); !maps.Equal(got, map[string]float64{orders + ",error.type=22012,managedpg.reason=statement": 1}) {
		t.Errorf("errors: %v", got)
	}
	h := all["db.client.connection.wait_time"].Data.(metricdata.Histogram[float64])
	p := h.DataPoints[0]
	if h.Temporality != metricdata.CumulativeTemporality || len(p.BucketCounts) != len(p.Bounds)+1 || p.Count != 3 || p.Sum <= 0 ||
		!slices.IsSorted(p.Bounds) || !p.StartTime.Equal(pool.Opened()) || !p.Time.After(p.StartTime) {
		t.Errorf("the histogram is %+v", p)
	}

	// A closed pool's series end.
	db.Close()
	for name, m := range read(t, r) {
		if v := values(m); len(v) > 0 {
			t.Errorf("%s after Close: %v", name, v)
		}
	}
}
