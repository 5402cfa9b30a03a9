package web

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/web"
)

// Whatever is wrong with a pool stands at its top in one sentence, and the pools in trouble stand first.
func TestSentences(t *testing.T) {
	ctx := t.Context()
	if err := open(t, pgtest.Database(t)+"&pool_size=3", "well").PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	open(t, pgtest.Database(t)+"&pool_size=3", "unused")
	exhausted := open(t, pgtest.Database(t)+"&pool_size=2&max_overflow=0", "exhausted")
	leaking := open(t, pgtest.Database(t)+"&pool_size=3&leak_threshold=100ms", "leaking")
	paused := open(t, pgtest.Database(t)+"&pool_size=3", "paused")
	first := pgtest.Start(t)
	second := pgtest.Start(t)
	moved := open(t, first.DSN()+"&pool_size=3&health_check_interval=200ms&failover_urls="+url.QueryEscape(second.DSN()), "failed over")

	hoarded := hoard(ctx, t, exhausted, 2)
	var waiting sync.WaitGroup
	for range 5 {
		waiting.Go(func() { queue(ctx, exhausted) })
	}
	forgotten := forget(ctx, leaking)
	t.Cleanup(func() {
		for _, c := range hoarded {
			c.Close()
		}
		waiting.Wait()
		forgotten.Close()
	})
	pool, _ := managedpg.PoolOf(paused)
	if err := pool.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Resume)
	if err := moved.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := moved.PingContext(ctx); err != nil {
		t.Fatal(err)
	}

	b := browse(t, web.Handler())
	b.until(t, `document.body.textContent.includes("Exhausted: 5 ") && document.body.textContent.includes("Leaking: ")`)
	b.refreshed(t, 1)
	for name, want := range map[string]string{
		"well":        `^All is well\.$`,
		"unused":      `^Not used yet\. Whether its server is there isn't known\.$`,
		"exhausted":   `^Exhausted: 5 checkouts wait, the longest for [0-9.]+m?s; story_test\.go:[0-9]+ web\.hoard has 2 of 2 connections, .*; 5 wait at story_test\.go:[0-9]+ web\.queue\. See what this line`,
		"leaking":     `^Leaking: 1 connection held for too long, the longest for .* by browser_test\.go:[0-9]+ web\.forget\. See that this line closes`,
		"paused":      `^Paused for .*; nobody waits\. Pool\.Resume ends it\.`,
		"failed over": `^On ` + regexp.QuoteMeta(second.Addr()) + `\S* since [0-9:]{8}, in place of ` + regexp.QuoteMeta(first.Addr()) + `\S*: .*Bring the server back`,
	} {
		story := eval[string](t, b, fmt.Sprintf(`[...document.querySelectorAll(".pool")].find((p) => p.querySelector("h2").textContent === %q)
			.querySelector(".story").textContent`, name))
		if !regexp.MustCompile(want).MatchString(story) {
			t.Errorf("%s: %q", name, story)
		}
	}
	names := eval[[]string](t, b, `[...document.querySelectorAll(".pool h2")].map((h) => h.textContent)`)
	if len(names) != 6 || names[4] != "unused" || names[5] != "well" {
		t.Errorf("in this order: %q", names)
	}
	b.screenshot(t, "sentences")
	b.dressed(t, "dark", 1280, 900)
	b.screenshot(t, "sentences-dark")
	b.dressed(t, "light", phone, 844)
	b.refreshed(t, 1)
	b.fits(t)
	b.screenshot(t, "sentences-phone")
}

// Thirty pools are an overview that leads to each, on a phone too.
func TestThirtyPools(t *testing.T) {
	for n := range 29 {
		db := open(t, pgtest.Database(t)+"&pool_size=5", fmt.Sprintf("service-%02d", n+1))
		if err := db.Ping(); err != nil {
			t.Fatal(err)
		}
	}
	leaking := open(t, pgtest.Database(t)+"&pool_size=5&leak_threshold=100ms", "the-one-in-trouble")
	forgotten := forget(t.Context(), leaking)
	defer forgotten.Close()

	b := browse(t, web.Handler())
	b.until(t, `document.querySelector(".overview tbody tr").textContent.includes("Leaking: ")`)
	if text := eval[string](t, b, `document.querySelector(".overview p").textContent`); text != "30 pools, 1 in trouble" {
		t.Errorf("the overview says %q", text)
	}
	b.screenshot(t, "thirty")
	b.dressed(t, "dark", phone, 844)
	b.refreshed(t, 1)
	b.fits(t)
	b.screenshot(t, "thirty-phone-dark")
	b.run(t, chromedp.Click(".overview tbody a"), chromedp.WaitVisible(".pool h2"))
	if name := eval[string](t, b, `document.querySelector(".pool h2").textContent`); name != "the-one-in-trouble" {
		t.Errorf("the overview's first row leads to %q", name)
	}
	b.fits(t)
}

func open(t *testing.T, dsn, name string) *sql.DB {
	t.Helper()
	db, err := sql.Open("managedpg", dsn+"&pool_name="+url.PathEscape(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// hoard takes connections and keeps them.
func hoard(ctx context.Context, t *testing.T, db *sql.DB, n int) (all []*sql.Conn) {
	t.Helper()
	for range n {
		c, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// queue wants a connection.
func queue(ctx context.Context, db *sql.DB) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if c, err := db.Conn(ctx); err == nil {
		c.Close()
	}
}
