package web

import (
	"net/url"
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/web"
)

// How far a standby is behind is drawn beside its endpoint, and is not cut off on a phone.
func TestStandbyBehind(t *testing.T) {
	primary := pgtest.Start(t)
	standby, err := primary.Standby()
	if err != nil {
		t.Fatal(err)
	}
	defer standby.Close()
	db := open(t, primary.DSN()+"&pool_size=3&health_check_interval=200ms&failover_urls="+url.QueryEscape(standby.DSN()), "orders")
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE orders (id int)"); err != nil {
		t.Fatal(err)
	}
	b := browse(t, web.Handler())
	b.until(t, `document.querySelector(".behind figcaption")?.textContent.includes("was not behind in the last")`)
	if err := standby.Exec("SELECT pg_wal_replay_pause()"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "INSERT INTO orders VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	b.until(t, `document.querySelector(".behind path.lag")?.getBoundingClientRect().height > 10`)
	if err := standby.Exec("SELECT pg_wal_replay_resume()"); err != nil {
		t.Fatal(err)
	}
	b.until(t, `document.querySelector(".behind svg[role=img]")?.getAttribute("aria-label").endsWith(": 0s now")`)
	b.screenshot(t, "lag")
	b.dressed(t, "dark", phone, 844)
	b.refreshed(t, 1)
	b.fits(t)
	b.screenshot(t, "lag-phone-dark")
}
