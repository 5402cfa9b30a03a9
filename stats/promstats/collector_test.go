package promstats

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite(m)) }

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// gather scrapes a pedantic registry, which looks whether what is collected is what was described.
func gather(t *testing.T, more ...prometheus.Collector) []*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(append(more, NewCollector())...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value is that of the one sample of the pool with the further label value, of a histogram its count; false if there is none.
func value(families []*dto.MetricFamily, name, pool string, more ...string) (float64, bool) {
	for _, f := range families {
		if f.GetName() != "managedpg_"+name {
			continue
		}
		for _, m := range f.Metric {
			var values []string
			for _, l := range m.Label {
				if l.GetName() != "pool" {
					values = append(values, l.GetValue())
				} else if l.GetValue() != pool {
					values = append(values, "of another pool")
				}
			}
			if slices.Equal(values, more) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
			}
		}
	}
	return 0, false
}

func TestFigures(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_name=orders&pool_size=2&max_overflow=1&pool_timeout=500ms&pool_min_idle=1&leak_threshold=1ms")
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	defer managedpg.SetLogger(nil)
	pool, _ := managedpg.PoolOf(db)
	ctx := context.Background()
	var held []*sql.Conn
	for range 3 {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	if _, err := db.Conn(ctx); !errors.Is(err, managedpg.ErrPoolTimeout) {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := db.Conn(cancelled); err == nil {
		t.Fatal("a cancelled checkout got a connection")
	}
	if err := held[0].Close(); err != nil {
		t.Fatal(err)
	}
	pool.CheckNow(ctx)
	for deadline := time.Now().Add(5 * time.Second); pool.Stats().TotalLeaks < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	endpoint := pool.Stats().Endpoint
	type sample struct {
		name  string
		more  []string
		value float64
	}
	want := []sample{
		{"pool_connections", []string{"used"}, 2}, {"pool_connections", []string{"idle"}, 1},
		{"pool_size", nil, 2}, {"pool_max_connections", nil, 3}, {"pool_min_idle_connections", nil, 1},
		{"pool_waiting_checkouts", nil, 0}, {"pool_leaked_connections", nil, 2},
		{"pool_checkouts_total", nil, 3}, {"pool_checkins_total", nil, 1},
		{"pool_failed_checkouts_total", []string{"timeout"}, 1}, {"pool_failed_checkouts_total", []string{"other"}, 1},
		{"pool_connections_created_total", nil, 3}, {"pool_connections_closed_total", []string{"idle"}, 0},
		{"pool_reclaimed_connections_total", nil, 0},
		{"pool_checkout_wait_seconds", nil, 3}, {"pool_connection_use_seconds", nil, 1}, {"pool_connection_create_seconds", nil, 3},
		{"pool_failovers_total", nil, 0}, {"pool_failbacks_total", nil, 0}, {"pool_on_first_endpoint", nil, 1},
		{"endpoint_state", []string{endpoint, "up"}, 1}, {"endpoint_state", []string{endpoint, "down"}, 0},
		{"endpoint_current", []string{endpoint}, 1}, {"endpoint_writable", []string{endpoint}, 1},
		{"endpoint_fenced", []string{endpoint}, 0}, {"endpoint_failed_checks_total", []string{endpoint}, 0},
	}
	families := gather(t)
	for _, w := range want {
		if got, ok := value(families, w.name, "orders", w.more...); !ok || got != w.value {
			t.Errorf("%s %q is %v (there: %v), want %v", w.name, w.more, got, ok, w.value)
		}
	}
	for _, name := range []string{"endpoint_checks_total", "endpoint_response_seconds"} {
		if got, ok := value(families, name, "orders", endpoint); !ok || got <= 0 {
			t.Errorf("%s is %v (there: %v)", name, got, ok)
		}
	}
	if got, ok := value(families, "pool_leaks_total", "orders"); !ok || got < 2 {
		t.Errorf("%v leaks, want 2 at least", got)
	}

	// No counter goes back when the figures start anew.
	pool.ResetStats()
	after := gather(t)
	for _, f := range families {
		for _, m := range f.Metric {
			var more []string
			for _, l := range m.Label {
				if l.GetName() != "pool" {
					more = append(more, l.GetValue())
				}
			}
			name := strings.TrimPrefix(f.GetName(), "managedpg_")
			before, _ := value(families, name, "orders", more...)
			if now, ok := value(after, name, "orders", more...); f.GetType() != dto.MetricType_GAUGE && (!ok || now < before) {
				t.Errorf("%s %q was %v and is %v after ResetStats", name, more, before, now)
			}
		}
	}
}

// What is known only to database/sql is left out, not zero.
func TestGovernedBySQL(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_name=plain")
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	families := gather(t)
	for _, name := range []string{"pool_size", "pool_max_connections", "pool_min_idle_connections", "pool_waiting_checkouts", "pool_checkout_wait_seconds"} {
		if got, ok := value(families, name, "plain"); ok {
			t.Errorf("%s is %v", name, got)
		}
	}
	if got, ok := value(families, "pool_connections", "plain", "idle"); !ok || got != 1 {
		t.Errorf("%v idle connections, want 1", got)
	}
}

func TestNoLimit(t *testing.T) {
	open(t, "postgres://127.0.0.1:1/db?pool_name=endless&pool_size=2&max_overflow=-1")
	if got, ok := value(gather(t), "pool_max_connections", "endless"); ok {
		t.Errorf("a limit of %v", got)
	}
}

// The names, help texts and units are what Prometheus' own linter wants, beside client_golang's own collector of the
// same database, and the labels are those promised.
func TestLint(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_name=orders&pool_size=2")
	pool, _ := managedpg.PoolOf(db)
	if h := pool.CheckNow(context.Background()); !h.Healthy {
		t.Fatalf("%+v", h)
	}
	divideByZero(t, db)
	families := gather(t, collectors.NewDBStatsCollector(db, "orders"))
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "managedpg_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	ours := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "managedpg_") {
			continue
		}
		ours++
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if !slices.Contains([]string{"pool", "endpoint", "state", "reason", "code"}, l.GetName()) {
					t.Errorf("%s has the label %s", f.GetName(), l.GetName())
				}
			}
		}
	}
	if ours != len(metrics) {
		t.Errorf("%d of %d metrics", ours, len(metrics))
	}
}

func divideByZero(t *testing.T, db *sql.DB) {
	t.Helper()
	if _, err := db.Exec("SELECT 1/0"); err == nil {
		t.Fatal("no error")
	}
}

// Errors are counted by kind and code, and ResetStats takes nothing from that.
func TestErrors(t *testing.T) {
	for _, keys := range []string{"", "&pool_size=2", "&base_driver=pq&pool_size=2"} {
		db := open(t, pgtest.Database(t)+"&pool_name=orders"+keys)
		divideByZero(t, db)
		pool, _ := managedpg.PoolOf(db)
		pool.ResetStats()
		divideByZero(t, db)
		if n, _ := value(gather(t), "pool_errors_total", "orders", "22012", "statement"); n != 2 {
			t.Errorf("%s: %v divisions by zero, want 2", keys, n)
		}
		if all := pool.Stats().Errors; len(all) != 1 || all[0].Code != "22012" || all[0].Count != 1 {
			t.Errorf("%s: %v", keys, all)
		}
		_, late := db.ExecContext(t.Context(), "SET statement_timeout = 20; SELECT pg_sleep(60)")
		cancelled, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			for running := ""; running != "1"; time.Sleep(time.Millisecond) {
				var err error
				running, err = pgtest.Shared(t).QueryString("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND wait_event = 'PgSleep'")
				if err != nil {
					t.Error(err)
					return
				}
			}
		}()
		_, gone := db.ExecContext(cancelled, "SELECT pg_sleep(61)")
		families := gather(t)
		if n, _ := value(families, "pool_errors_total", "orders", "57014", "statement"); n != 1 {
			t.Errorf("%s: %v statements ended by statement_timeout (%v), want 1", keys, n, late)
		}
		if n, _ := value(families, "pool_errors_total", "orders", "canceled", "statement"); n != 1 {
			t.Errorf("%s: %v statements ended by their caller (%v), want 1: %v", keys, n, gone, pool.Stats().Errors)
		}
		db.Close()
	}
	db := open(t, "postgres://127.0.0.1:1/db?pool_name=nowhere&pool_size=2")
	if err := db.Ping(); err == nil {
		t.Fatal("there is a server")
	}
	families := gather(t)
	for _, kind := range []string{"dial", "checkout"} {
		if n, _ := value(families, "pool_errors_total", "nowhere", "refused", kind); n < 1 {
			t.Errorf("%v errors of the kind %s", n, kind)
		}
	}
}

// The table in ops/README.md is what is published.
func TestMetricsAreListed(t *testing.T) {
	text, err := os.ReadFile("../../ops/README.md")
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, pgtest.Database(t)+"&pool_name=orders&pool_size=2")
	pool, _ := managedpg.PoolOf(db)
	if h := pool.CheckNow(context.Background()); !h.Healthy {
		t.Fatalf("%+v", h)
	}
	divideByZero(t, db)
	for _, f := range gather(t) {
		labels := map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = true
			}
		}
		delete(labels, "pool")
		row := fmt.Sprintf("| `%s` | %s | %s | %s |", f.GetName(), strings.ToLower(f.GetType().String()),
			strings.Join(slices.Sorted(maps.Keys(labels)), ", "), f.GetHelp())
		if !strings.Contains(string(text), row+"\n") {
			t.Errorf("ops/README.md lacks\n%s", row)
		}
	}
}

// Names from outside never fail a scrape.
func TestHostileNames(t *testing.T) {
	for _, name := range []string{"a\xff", "a\xfe", "a", "a", "\"}\\", "<script>"} {
		cfg, err := managedpg.ParseDSN("postgres://127.0.0.1:1/%22%7D%5C?pool_size=1")
		if err != nil {
			t.Fatal(err)
		}
		cfg.PoolName = name
		db, err := managedpg.OpenDB(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector())
	if count, err := testutil.GatherAndCount(registry, "managedpg_pool_size"); err != nil || count != 6 {
		t.Errorf("%d pools: %v", count, err)
	}
}
