package web

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

func TestStory(t *testing.T) {
	at := time.Date(2024, 5, 1, 12, 4, 31, 0, time.UTC)
	moved := &failover.Status{History: []failover.Event{{At: at, From: "db1", To: "db2", Reason: "db1 refuses"}}}
	base := stats.Snapshot{GovernedBy: stats.GovernedByDriver, Size: 3, MaxOverflow: 1, Endpoint: "db1", IsPrimary: true}
	with := func(change func(*stats.Snapshot)) *stats.Snapshot { s := base; change(&s); return &s }
	usage := []leak.Usage{{Caller: "/x/orders.go:88 example.com/x/y.list", Share: 0.61}}
	for want, s := range map[string]*stats.Snapshot{
		"": &base,
		"No server is usable: db1 is down (refused).": with(func(s *stats.Snapshot) { s.Endpoint = "" }),
		"Paused for 2s; 1 checkout waits.":            with(func(s *stats.Snapshot) { s.Paused, s.Waiting = 2*time.Second, 1 }),
		"Exhausted: 12 checkouts wait, the queue has stood for 40s; orders.go:88 y.list has held 61 % of the pool's time.": with(func(s *stats.Snapshot) {
			s.CheckedOut, s.Waiting, s.QueueStanding = 4, 12, 40*time.Second
		}),
		"Leaking: 2 connections held for too long, the longest for 5m0s by a.go:1 y.f.": with(func(s *stats.Snapshot) {
			s.LeakedConnections, s.LongestHolders = 2, []stats.Holder{{Caller: "/x/a.go:1 example.com/x/y.f", Held: 5 * time.Minute}}
		}),
		"On db2 since 12:04:31, in place of db1: db1 refuses.": with(func(s *stats.Snapshot) { s.Endpoint, s.IsPrimary = "db2", false }),
	} {
		health := &failover.Health{Endpoints: []failover.EndpointHealth{{Endpoint: "db1", State: failover.Down, LastError: "refused"}}}
		if got := tell(s, health, moved, usage); got.Text != want || (got.Do == "") != (want == "") {
			t.Errorf("%q, do %q; want %q", got.Text, got.Do, want)
		}
	}
}

// The pool in trouble stands first, and the page says what is wrong and who used the pool.
func TestTroubleFirst(t *testing.T) {
	open(t, pgtest.Database(t)+"&pool_size=3", "a well one")
	db := open(t, pgtest.Database(t)+"&pool_size=3", "paused")
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	pool, _ := managedpg.PoolOf(db)
	if err := pool.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	html := get(t, "/", "")
	well, paused := strings.Index(html, ">a well one</h2>"), strings.Index(html, ">paused</h2>")
	if paused < 0 || well < paused {
		t.Errorf("the paused one at %d, the other at %d", paused, well)
	}
	if !strings.Contains(html, `<p class="story warn"><b>Paused for `) || strings.Count(html, "all is well</li>") != 1 {
		t.Error("the page doesn't say that a pool is paused, or says that all is well with it")
	}
}
