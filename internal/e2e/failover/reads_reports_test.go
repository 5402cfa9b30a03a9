package failover_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/promstats"
	"github.com/managedpg/managedpg/stats/web"
)

// The pool for reads stands beside the other in the figures, in the metrics, on the page and in the reports of leaks.
func TestThePoolForReadsIsShown(t *testing.T) {
	primary, standbys := readsOnStandbys(t)
	servers := append([]*pgtest.Cluster{primary}, standbys...)
	db := rig.OpenQuietly(t, rig.WithKeys(cluster(servers...), "pool_name=shop", "pool_size=4", "standby_reads=true", "leak_threshold=1ms",
		"max_replication_lag=1h"))
	ctx := context.Background()
	rig.Eventually(t, "reads on a standby", func() bool { return onStandby(t, managedpg.ReadOnly(ctx), db) })
	held, err := db.Conn(managedpg.ReadOnly(ctx))
	rig.NoError(t, err)
	defer held.Close()

	var reads *managedpg.Pool
	var names []string
	for _, p := range managedpg.Pools() {
		if names = append(names, p.Name()); p.Name() == "shop/reads" {
			reads = p
		}
	}
	if slices.Sort(names); reads == nil || !slices.Equal(names, []string{"shop", "shop/reads"}) {
		t.Fatalf("pools are %q", names)
	}
	if s := reads.Stats(); s.CheckedOut != 1 || s.Name != "shop/reads" || rig.PoolOf(t, db).Stats().CheckedOut != 0 {
		t.Errorf("figures: %+v", s)
	}
	rig.Eventually(t, "the leak is reported", func() bool { return len(reads.Leaks()) == 1 })
	if l := reads.Leaks()[0]; l.Pool != "shop/reads" || !strings.Contains(l.Caller, "reads_reports_test.go") ||
		!slices.ContainsFunc(standbys, func(s *pgtest.Cluster) bool { return strings.HasPrefix(l.Endpoint, s.Addr()) }) {
		t.Errorf("the leak is %+v", l)
	}
	lags := 0
	rig.Eventually(t, "the standbys' lag is known", func() bool {
		lags = 0
		for _, e := range reads.Health().Endpoints {
			if e.ReplicationLag >= 0 && !strings.HasPrefix(e.Endpoint, primary.Addr()) {
				lags++
			}
		}
		return lags == len(standbys)
	})

	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(promstats.NewCollector())
	families, err := registry.Gather()
	rig.NoError(t, err)
	published := make(map[string]int)
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "pool" && l.GetValue() == "shop/reads" {
					published[f.GetName()]++
				}
			}
		}
	}
	for name, least := range map[string]int{"managedpg_pool_checkouts_total": 1, "managedpg_endpoint_replication_lag_seconds": len(standbys)} {
		if published[name] < least {
			t.Errorf("%d of %s are published, want %d: %v", published[name], name, least, published)
		}
	}

	page := httptest.NewRecorder()
	web.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/debug/managedpg/", nil))
	if body := page.Body.String(); page.Code != 200 || !strings.Contains(body, "shop/reads") {
		t.Errorf("the page, status %d, hasn't the pool for reads", page.Code)
	}
}
