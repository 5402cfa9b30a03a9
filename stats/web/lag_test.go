package web

import (
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// How far a standby was behind is kept where it changes, for half an hour, and drawn.
func TestLagHistory(t *testing.T) {
	start := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	var h history
	standby := failover.EndpointHealth{Endpoint: "db2", State: failover.Up}
	for second := range 61 * 60 {
		now := start.Add(time.Duration(second) * time.Second)
		switch second {
		case 60, 50 * 60:
			standby.ReplicationLag = 3 * time.Second
		case 70, 50*60 + 10:
			standby.ReplicationLag = 0
		case 52 * 60:
			standby.State = failover.Down
		case 53 * 60:
			standby.State = failover.Up
		}
		h.addLags([]failover.EndpointHealth{standby, {Endpoint: "db1", State: failover.Up}}, now)
		if second == 65 {
			if c := lagChart(h.lags["db2"], now, past); c.Title != "its replay was behind by 3s at most in the last 1m5s" || c.Label != "3s now" {
				t.Errorf("%+v", c)
			}
		}
	}
	if n := len(h.lags["db2"]); n != 5 { // none, 3 s, none, not there, none
		t.Errorf("%d points are kept: %v", n, h.lags["db2"])
	}
	now := start.Add(60*time.Minute + 59*time.Second)
	c := lagChart(h.lags["db2"], now, past)
	if c.Title != "its replay was behind by 3s at most in the last 30m" || c.Top != "3s" || c.Label != "0s now" || c.Areas[0].Path == "" {
		t.Errorf("%+v", c)
	}
	if c := lagChart(h.lags["db2"], now, recent); c.Title != "its replay was not behind in the last 5m" || len(c.Areas) > 0 {
		t.Errorf("%+v", c)
	}
	if len(h.lags["db1"]) != 1 {
		t.Errorf("of a primary %v is kept", h.lags["db1"])
	}
	h.addLags(nil, now)
	if len(h.lags) > 0 || lagChart(nil, now, past) != nil || lagChart([]lagPoint{{uint32(now.Unix()), notKnown}}, now, past) != nil {
		t.Error("something is told of what isn't known")
	}
}

// A standby whose replay stands still is drawn on the page.
func TestLagOnThePage(t *testing.T) {
	primary := pgtest.Start(t)
	standby, err := primary.Standby()
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close()
	db := open(t, primary.DSN()+"&pool_size=2&health_check_interval=100ms&failover_urls="+url.QueryEscape(standby.DSN()), "orders")
	h := Handler()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE orders (id int)"); err != nil {
		t.Fatal(err)
	}
	if err := standby.Exec("SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	drawn := regexp.MustCompile(`(?s)its replay was behind by [0-9.]+m?s at most in the last [0-9]+s</span></figcaption>\s*<svg class="chart".*?<path class="lag" d="M`)
	eventually(t, "the page shows how far it is behind", func() bool {
		if _, err := db.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		return drawn.MatchString(fetch(t, h, "/", ""))
	})
}
