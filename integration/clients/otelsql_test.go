package clients

import (
	"context"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/leak"
)

// traced is where otelsql's spans go.
func traced(t *testing.T) (*tracetest.SpanRecorder, otelsql.Option) {
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return spans, otelsql.WithTracerProvider(provider)
}

// statements are the spans of one method, by what became of it: "", or "Error".
func statements(spans *tracetest.SpanRecorder, method otelsql.Method) map[string]int {
	n := map[string]int{}
	for _, span := range spans.Ended() {
		if span.Name() == string(method) {
			n[span.Status().Code.String()]++
		}
	}
	return n
}

// otelsql around managedpg: it sees each call, the pool is found by its name, and its figures are managedpg's.
func TestOtelsqlAroundManagedpg(t *testing.T) {
	eachBase(t, func(s *servers) {
		ctx := context.Background()
		spans, to := traced(t)
		db, err := otelsql.Open("managedpg", s.dsn, to)
		s.must(err)
		defer db.Close()
		reader := metric.NewManualReader()
		meter := metric.NewMeterProvider(metric.WithReader(reader))
		defer meter.Shutdown(ctx)
		registered, err := otelsql.RegisterDBStatsMetrics(db, otelsql.WithMeterProvider(meter))
		s.must(err)
		defer registered.Unregister()

		for _, query := range []string{"CREATE TABLE fruit (name text)", "INSERT INTO fruit VALUES ('apple')"} {
			_, err := db.ExecContext(ctx, query)
			s.must(err)
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO vegetable VALUES ('leek')"); err == nil {
			t.Error("a table that isn't there was written to")
		}
		if _, ok := managedpg.PoolOf(db); ok {
			t.Error("PoolOf sees through otelsql: then the documentation is wrong")
		}

		s.failOver()

		tx, err := db.BeginTx(ctx, nil)
		s.must(err)
		_, err = tx.ExecContext(ctx, "INSERT INTO fruit VALUES ($1)", "pear")
		s.must(err)
		s.must(tx.Commit())
		var fruits int
		s.must(db.QueryRowContext(ctx, "SELECT count(*) FROM fruit").Scan(&fruits))
		if fruits != 2 {
			t.Errorf("%d fruits", fruits)
		}
		if n := statements(spans, otelsql.MethodConnExec); n["Unset"] != 3 || n["Error"] != 1 {
			t.Errorf("spans of Exec: %v", n)
		}
		if n := statements(spans, otelsql.MethodTxCommit); n["Unset"] != 1 {
			t.Errorf("spans of Commit: %v", n)
		}
		var published metricdata.ResourceMetrics
		s.must(reader.Collect(ctx, &published))
		if len(published.ScopeMetrics) == 0 {
			t.Error("no figures of db.Stats")
		}
		s.check()
	})
}

// A leak through otelsql names the line that called database/sql.
func TestLeakThroughOtelsql(t *testing.T) {
	for _, keys := range []string{"base_driver=pgx", "base_driver=pgx&pool_size=4", "base_driver=pq", "base_driver=pq&pool_size=4"} {
		t.Run(keys, func(t *testing.T) {
			db, err := otelsql.Open("managedpg", pgtest.Database(t)+"&leak_threshold=0.1&pool_name=otelsql&"+keys)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			at := nextLine()
			rows, err := db.QueryContext(context.Background(), "SELECT 1")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var leaks []leak.Report
			eventually(t, "a leak reported", func() bool {
				for _, p := range managedpg.Pools() {
					if p.Name() == "otelsql" {
						leaks = p.Leaks()
					}
				}
				return len(leaks) > 0
			})
			if !strings.HasPrefix(leaks[0].Caller, at) {
				t.Errorf("the leak is at %s, and is reported at %s", at, leaks[0].Caller)
			}
		})
	}
}

// managedpg around connectors of the program's own, one for each server: lib/pq's, and otelsql's around pgx. Their sockets are not
// managedpg's, so a connection that died in the pool costs the call that meets it.
func TestManagedpgAroundOwnConnectors(t *testing.T) {
	spans, to := traced(t)
	for name, connector := range map[string]func(dsn string) (driver.Connector, error){
		"pq": func(dsn string) (driver.Connector, error) { return pq.NewConnector(dsn) },
		"otelsql": func(dsn string) (driver.Connector, error) {
			return otelsql.WrapDriver(stdlib.GetDefaultDriver(), to).(driver.DriverContext).OpenConnector(dsn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, "pool_size=none")
			ctx := context.Background()
			cfg := &managedpg.Config{PoolName: t.Name(), PoolSize: 4, Failover: true, LeakDetection: true, HealthCheck: true}
			for _, server := range []*pgtest.Cluster{s.primary, s.standby} {
				c, err := connector(server.DSN())
				s.must(err)
				cfg.Endpoints = append(cfg.Endpoints, c)
			}
			db, err := managedpg.OpenDB(cfg)
			s.must(err)
			defer db.Close()
			_, err = db.ExecContext(ctx, "CREATE TABLE fruit (n int)")
			s.must(err)

			s.failOver()

			var lost int
			for n := range 5 {
				if _, err := db.ExecContext(ctx, "INSERT INTO fruit VALUES ($1)", n); err != nil {
					t.Log(err)
					lost++
				}
			}
			var fruits int
			s.must(db.QueryRowContext(ctx, "SELECT count(*) FROM fruit").Scan(&fruits))
			if lost > 1 || fruits != 5-lost {
				t.Errorf("of 5 calls %d were lost, and %d are there", lost, fruits)
			}
			if h := s.pool().Health(); len(h.Endpoints) != 2 || h.Endpoints[1].State != failover.Up || h.Endpoints[1].Note == "" {
				t.Errorf("health of what is known by pings alone: %+v", h)
			}
			s.check()
		})
	}
	if n := statements(spans, otelsql.MethodConnExec); n["Unset"] < 5 {
		t.Errorf("spans of Exec: %v", n)
	}
}
