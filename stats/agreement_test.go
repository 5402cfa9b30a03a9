package stats_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats"
	"github.com/managedpg/managedpg/stats/otelstats"
	"github.com/managedpg/managedpg/stats/otelstats/producer"
	"github.com/managedpg/managedpg/stats/promstats"
	"github.com/managedpg/managedpg/stats/web"
)

// TestAgreement has a pool do all that there is a figure for: checkouts, a timeout, leaks and one taken back, closings, a
// failover. Then all who tell figures must tell the same ones, and the server too.
func TestAgreement(t *testing.T) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	defer managedpg.SetLogger(nil)
	a := pgtest.Start(t)
	b, err := a.Standby()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	db, err := sql.Open("managedpg", a.DSN()+"&pool_name=orders&pool_size=3&max_overflow=2&pool_timeout=50ms&leak_threshold=1s&"+
		"leak_reclaim_after=3s&health_check_interval=300ms&failover_urls="+url.QueryEscape(b.DSN()))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	pool, _ := managedpg.PoolOf(db)
	ctx := context.Background()

	var held []*sql.Conn
	for range 5 {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	for range 3 {
		if _, err := db.Conn(ctx); !errors.Is(err, managedpg.ErrPoolTimeout) {
			t.Fatalf("a sixth connection: %v", err)
		}
	}
	cancelled, cancel := context.WithTimeout(ctx, time.Millisecond)
	if _, err := db.Conn(cancelled); err == nil {
		t.Fatal("a checkout whose context had ended got a connection")
	}
	cancel()
	eventually(t, "leaks are reported", func() bool { return pool.Stats().TotalLeaks == 5 })
	for _, c := range held[1:] {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the last one is taken back", func() bool { return pool.Stats().ReclaimedConnections == 1 })
	for range 20 {
		if err := db.Ping(); err != nil {
			t.Fatal(err)
		}
	}

	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.Promote(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pool is on the standby", func() bool {
		return db.PingContext(ctx) == nil && pool.Failover().FailoverCount == 1
	})
	var working []*sql.Conn
	for range 2 {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		working = append(working, c)
	}
	defer func() {
		for _, c := range working {
			c.Close()
		}
	}()
	eventually(t, "the two are leaks too", func() bool { return pool.Stats().TotalLeaks == 7 })

	// The figures move while probes go on, so they are compared when two readings of the first are the same.
	sources := []struct {
		name string
		read func(*testing.T) map[string]float64
	}{
		{"Snapshot", ofSnapshot}, {"Prometheus", ofPrometheus}, {"OpenTelemetry", ofOpenTelemetry}, {"expvar", ofExpvar}, {"page", ofPage},
	}
	var before, after map[string]float64
	for try := range 20 {
		before = ofSnapshot(t)
		all := make([]map[string]float64, len(sources))
		for i, s := range sources {
			all[i] = s.read(t)
		}
		after = ofSnapshot(t)
		if fmt.Sprint(before) != fmt.Sprint(after) && try < 19 {
			continue
		}
		for i, s := range sources {
			for name, value := range before {
				if got, ok := all[i][name]; !ok || got != value {
					t.Errorf("%s: %s is %v (there: %v), by the Snapshot it is %v", s.name, name, got, ok, value)
				}
			}
		}
		break
	}
	for name, want := range map[string]float64{"used": 2, "waiting": 0, "timeouts": 3, "failed": 4, "leaks": 7, "reclaimed": 1, "failovers": 1, "limit": 5} {
		if before[name] != want {
			t.Errorf("%s is %v, want %v", name, before[name], want)
		}
	}

	// The server counts the sessions of the pool, and that of the monitor.
	var sessions float64
	eventually(t, "the server sees as many sessions", func() bool {
		text, err := b.QueryString("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND client_addr IS NOT NULL")
		if err != nil {
			t.Fatal(err)
		}
		sessions, err = strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		open := ofSnapshot(t)["open"]
		return sessions == open+1
	})
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s; %v", what, managedpg.Stats())
		}
	}
}

func ofSnapshot(*testing.T) map[string]float64 {
	s := managedpg.Stats()[0]
	return map[string]float64{
		"limit": float64(s.Size + s.MaxOverflow), "open": float64(s.Open), "used": float64(s.CheckedOut), "free": float64(s.CheckedIn),
		"waiting": float64(s.Waiting), "checkouts": float64(s.TotalCheckouts), "failed": float64(s.FailedCheckouts),
		"timeouts": float64(s.CheckoutTimeouts), "created": float64(s.TotalConnectionsCreated), "closed": float64(s.TotalConnectionsClosed),
		"closed by reclaim": float64(s.ClosedBy[stats.ClosedReclaimed]), "cancels": float64(s.CancelsSent), "leaked": float64(s.LeakedConnections), "leaks": float64(s.TotalLeaks),
		"reclaimed": float64(s.ReclaimedConnections), "failovers": float64(s.FailoverCount), "failbacks": float64(s.FailbackCount),
		"waits": float64(s.CheckoutTime.Count), "uses": float64(s.UseTime.Count), "dials": float64(s.CreateTime.Count),
	}
}

// add adds a sample under the names that ofSnapshot has, by what the source calls it.
func add(to map[string]float64, names map[string][]string, name string, value float64) {
	for _, n := range names[name] {
		to[n] += value
	}
}

func ofPrometheus(t *testing.T) map[string]float64 {
	names := map[string][]string{
		"pool_max_connections": {"limit"}, "pool_connections used": {"open", "used"}, "pool_connections idle": {"open", "free"},
		"pool_waiting_checkouts": {"waiting"}, "pool_checkouts_total": {"checkouts"},
		"pool_failed_checkouts_total timeout": {"failed", "timeouts"}, "pool_failed_checkouts_total other": {"failed"},
		"pool_connections_created_total": {"created"}, "pool_leaked_connections": {"leaked"}, "pool_leaks_total": {"leaks"},
		"pool_cancels_sent_total":          {"cancels"},
		"pool_reclaimed_connections_total": {"reclaimed"}, "pool_failovers_total": {"failovers"}, "pool_failbacks_total": {"failbacks"},
		"pool_checkout_wait_seconds": {"waits"}, "pool_connection_use_seconds": {"uses"}, "pool_connection_create_seconds": {"dials"},
	}
	closedNames(names, "pool_connections_closed_total ")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(promstats.NewCollector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "managedpg_")
			for _, l := range m.Label {
				if l.GetName() == "state" || l.GetName() == "reason" {
					name += " " + l.GetValue()
				}
			}
			add(all, names, name, m.GetGauge().GetValue()+m.GetCounter().GetValue()+float64(m.GetHistogram().GetSampleCount()))
		}
	}
	return all
}

// closedNames adds the names of what counts closings.
func closedNames(names map[string][]string, prefix string) {
	for reason := range new(stats.ClosedBy).All() {
		names[prefix+reason.String()] = []string{"closed"}
	}
	names[prefix+"reclaimed"] = []string{"closed", "closed by reclaim"}
}

func ofOpenTelemetry(t *testing.T) map[string]float64 {
	names := map[string][]string{
		"db.client.connection.max": {"limit"}, "db.client.connection.count used": {"open", "used"}, "db.client.connection.count idle": {"open", "free"},
		"db.client.connection.pending_requests": {"waiting"}, "managedpg.checkouts": {"checkouts"},
		"db.client.connection.timeouts": {"timeouts"}, "managedpg.failed_checkouts timeout": {"failed"}, "managedpg.failed_checkouts other": {"failed"},
		"managedpg.connections.created": {"created"}, "managedpg.leaked_connections": {"leaked"}, "managedpg.leaks": {"leaks"},
		"managedpg.cancels.sent":          {"cancels"},
		"managedpg.reclaimed_connections": {"reclaimed"}, "managedpg.failovers": {"failovers"}, "managedpg.failbacks": {"failbacks"},
		"db.client.connection.wait_time": {"waits"}, "db.client.connection.use_time": {"uses"}, "db.client.connection.create_time": {"dials"},
	}
	closedNames(names, "managedpg.connections.closed ")
	reader := sdk.NewManualReader(sdk.WithProducer(producer.New()))
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	defer provider.Shutdown(context.Background())
	if _, err := otelstats.Register(provider); err != nil {
		t.Fatal(err)
	}
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					name := m.Name
					for _, key := range []string{"db.client.connection.state", "managedpg.reason"} {
						for _, a := range p.Attributes.ToSlice() {
							if string(a.Key) == key {
								name += " " + a.Value.AsString()
							}
						}
					}
					add(all, names, name, float64(p.Value))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(all, names, m.Name, float64(p.Count))
				}
			}
		}
	}
	return all
}

func ofExpvar(t *testing.T) map[string]float64 {
	var pools map[string]map[string]any
	if err := json.Unmarshal([]byte(expvar.Get("managedpg").String()), &pools); err != nil {
		t.Fatal(err)
	}
	return ofJSON(pools["orders"])
}

func ofPage(t *testing.T) map[string]float64 {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept", "application/json")
	w := httptest.NewRecorder()
	web.Handler().ServeHTTP(w, r)
	var page struct {
		Pools []struct{ Stats map[string]any }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	all := ofJSON(page.Pools[0].Stats)
	// What a reader of the page sees.
	w = httptest.NewRecorder()
	web.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	for _, seen := range []string{
		fmt.Sprintf("<dt>In use</dt><dd>%.0f<span>of %.0f</span></dd>", all["used"], all["limit"]),
		fmt.Sprintf("<dt>Free</dt><dd>%.0f</dd>", all["free"]),
		fmt.Sprintf("<dt>Waiting</dt><dd>%.0f</dd>", all["waiting"]),
		fmt.Sprintf("<dt>Pool timeouts</dt><dd>%.0f<span>in 5m; %[1]v in all, last at ", all["timeouts"]),
		fmt.Sprintf("<dt>Failed otherwise</dt><dd>%.0f<span>in 5m; %[1]v in all, last at ", all["failed"]-all["timeouts"]),
		fmt.Sprintf("<dt>Held too long</dt><dd>%.0f<span>now; %.0f ever</span></dd>", all["leaked"], all["leaks"]),
		fmt.Sprintf("<span>a second; %.0f in all</span></dd>", all["checkouts"]),
		fmt.Sprintf("<dt>Failovers</dt><dd>%.0f</dd>", all["failovers"]),
		fmt.Sprintf("%.0f opened, %.0f closed", all["created"], all["closed"]),
		fmt.Sprintf("<span>%.0f ×</span>", all["waits"]),
	} {
		if !strings.Contains(w.Body.String(), seen) {
			t.Errorf("the page doesn't show %s", seen)
		}
	}
	return all
}

func ofJSON(s map[string]any) map[string]float64 {
	of := func(name string) float64 { v, _ := s[name].(float64); return v }
	in := func(name, part string) float64 { m, _ := s[name].(map[string]any); v, _ := m[part].(float64); return v }
	return map[string]float64{
		"limit": of("size") + of("max_overflow"), "open": of("open"), "used": of("checked_out"), "free": of("checked_in"),
		"waiting": of("waiting"), "checkouts": of("total_checkouts"), "failed": of("failed_checkouts"), "timeouts": of("checkout_timeouts"),
		"created": of("total_connections_created"), "closed": of("total_connections_closed"), "closed by reclaim": in("closed_by", "reclaimed"),
		"cancels": of("cancels_sent"), "leaked": of("leaked_connections"), "leaks": of("total_leaks"), "reclaimed": of("reclaimed_connections"),
		"failovers": of("failover_count"), "failbacks": of("failback_count"),
		"waits": in("checkout_time", "count"), "uses": in("use_time", "count"), "dials": in("create_time", "count"),
	}
}
