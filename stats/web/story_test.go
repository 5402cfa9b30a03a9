package web

import (
	"context"
	"errors"
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
	const greedy, other = "/x/orders.go:88 example.com/x/y.list", "/x/a.go:1 example.com/x/y.f"
	for _, c := range []struct {
		want   string
		change func(*situation)
	}{
		{"", func(*situation) {}},
		{"No server is usable; db1 is down (refused).", func(in *situation) {
			in.stats.Endpoint = ""
			in.health.Endpoints = []failover.EndpointHealth{{Endpoint: "db1", State: failover.Down, LastError: "refused"}}
		}},
		{"Paused for 2s; 1 checkout waits.", func(in *situation) { in.stats.Paused, in.stats.Waiting = 2*time.Second, 1 }},
		{"Exhausted: 12 checkouts wait, the longest for 6s, the queue has stood for 40s; orders.go:88 y.list has 3 of 4 connections, " +
			"the longest for 5s, and has held 61 % of the pool's time; 8 wait at a.go:1 y.f.", func(in *situation) {
			in.stats.CheckedOut, in.stats.Waiting, in.stats.QueueStanding = 4, 12, 40*time.Second
			in.usage = []leak.Usage{{Caller: greedy, Share: 0.61}}
			in.waiting = []leak.Waiting{{Caller: other, Checkouts: 8, Longest: time.Second}, {Caller: greedy, Checkouts: 4, Longest: 6 * time.Second}}
			in.holders = []leak.Report{{Caller: greedy, Duration: 5 * time.Second}, {Caller: other, Duration: 4 * time.Second},
				{Caller: greedy, Duration: 3 * time.Second}, {Caller: greedy, Duration: time.Second}}
		}},
		{"Exhausted: 1 checkout waits; a.go:1 y.f has 1 of 4 connections, the longest for 5s; over the last minutes orders.go:88 y.list has held " +
			"61 % of the pool's time.", func(in *situation) {
			in.stats.CheckedOut, in.stats.Waiting = 4, 1
			in.usage = []leak.Usage{{Caller: greedy, Share: 0.61}}
			in.holders = []leak.Report{{Caller: other, Duration: 5 * time.Second}}
		}},
		{"Full: 1 checkout waits, the longest for 20ms; 1 waits at a.go:1 y.f.", func(in *situation) {
			in.stats.CheckedOut, in.stats.Waiting = 4, 1
			in.waiting = []leak.Waiting{{Caller: other, Checkouts: 1, Longest: 20 * time.Millisecond}}
		}},
		{"Leaking: 2 connections held for too long, the longest for 5m by a.go:1 y.f.", func(in *situation) {
			in.leaks = []leak.Report{{Caller: other, Duration: 5 * time.Minute}, {Caller: greedy, Duration: 4 * time.Minute}}
		}},
		{"On db2 since 12:04:31, in place of db1: db1 refuses.", func(in *situation) {
			in.stats.Endpoint, in.stats.IsPrimary = "db2", false
			in.status.History = []failover.Event{{Kind: failover.Failover, At: at, From: "db1", To: "db2", Reason: "db1 refuses"}}
		}},
		{"36 checkouts failed in the last 5m, the last one at 12:10:00 (pool_timeout, checkout deadline): " +
			"no connection was given back within pool_timeout; the caller's time was over first.", func(in *situation) {
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorPoolTimeout, Code: "timeout", Count: 30, Last: in.now.Add(-2 * time.Minute)},
				{Kind: stats.ErrorCheckout, Code: "deadline", Count: 106, Last: in.now.Add(-3 * time.Minute)}}
			in.before.errors = errorSums{otherCheckouts: 100}
			in.present.errors = errorSums{timeouts: 30, otherCheckouts: 106}
		}},
		{"1 call lost in the last 5m, the last one at 12:11:59 (outcome_unknown reset): the connection was cut, without a word from the server.", func(in *situation) {
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorOutcomeUnknown, Code: "reset", Count: 1, Last: in.now.Add(-time.Second)}}
			in.present.errors = errorSums{lostCalls: 1}
		}},
		{"3 calls lost in the last 5m, the last one at 12:11:59 (outcome_unknown hung, tx_lost hung, reclaimed other): managedpg closed the connection, " +
			"as its server answered no probe; it was held for longer than leak_reclaim_after.", func(in *situation) {
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorOutcomeUnknown, Code: "hung", Count: 1, Last: in.now.Add(-time.Second)},
				{Kind: stats.ErrorTxLost, Code: "hung", Count: 1, Last: in.now.Add(-2 * time.Second)},
				{Kind: stats.ErrorReclaimed, Code: "other", Count: 1, Last: in.now.Add(-3 * time.Second)}}
			in.present.errors = errorSums{lostCalls: 3}
		}},
		{"On db2 since 12:04:31, in place of db1: db1 refuses; for 2.15s there was no server to use.", func(in *situation) {
			in.stats.Endpoint, in.stats.IsPrimary = "db2", false
			in.status.History = []failover.Event{{Kind: failover.Failover, At: at, From: "db1", To: "db2", Reason: "db1 refuses", Duration: 2146 * time.Millisecond}}
		}},
		{"2 checkouts failed in the last 5m, the last one at 12:11:59 (checkout 53300): the server has no room for one more connection (max_connections, " +
			"or a limit of the role's or the database's).", func(in *situation) {
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorCheckout, Code: "53300", Count: 2, Last: in.now.Add(-time.Second)}}
			in.present.errors = errorSums{otherCheckouts: 2}
		}},
		{"On db2 since 12:04:31, in place of db1: db1 refuses.", func(in *situation) { // and db1 is down, which that says
			in.stats.Endpoint, in.stats.IsPrimary = "db2", false
			in.health.Endpoints = []failover.EndpointHealth{{Endpoint: "db1", State: failover.Down, LastError: "refused"}, {Endpoint: "db2", State: failover.Up}}
			in.status.History = []failover.Event{{Kind: failover.Failover, At: at, From: "db1", To: "db2", Reason: "db1 refuses"}}
		}},
		{"", func(in *situation) { // long ago, and db1 is up again
			in.stats.Endpoint, in.stats.IsPrimary = "db2", false
			in.health.Endpoints = []failover.EndpointHealth{{Endpoint: "db1", State: failover.Up}, {Endpoint: "db2", State: failover.Up}}
			in.status.History = []failover.Event{{Kind: failover.Failover, At: in.now.Add(-past - time.Second), From: "db1", To: "db2", Reason: "db1 refuses"}}
		}},
		{"Calls run out of time: 7 in the last 5m, the last one at 12:11:59, 4 at orders.go:88 y.list and 2 at a.go:1 y.f.", func(in *situation) {
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorStatement, Code: "deadline", Count: 70, Last: in.now.Add(-time.Second)}}
			in.usage = []leak.Usage{{Caller: other, TimedOut: 2}, {Share: 1}, {Caller: greedy, TimedOut: 4}, {TimedOut: 1}}
		}},
		{"Calls run out of time: 7 since the start, the last one at 12:11:59.", func(in *situation) { // leak detection is off
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorStatement, Code: "57014", Count: 7, Last: in.now.Add(-time.Second)},
				{Kind: stats.ErrorStatement, Code: "23505", Count: 3, Last: in.now}}
		}},
		{"db2 is down: refused.", func(in *situation) {
			in.health.Endpoints = []failover.EndpointHealth{{Endpoint: "db2", State: failover.Down, LastError: "refused"}}
		}},
		{"", func(in *situation) { // long ago
			in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorPoolTimeout, Count: 1, Last: in.now.Add(-lately - time.Second)}}
			in.status.History = []failover.Event{{Kind: failover.Failover, At: in.now.Add(-time.Hour), From: "db2", To: "db1", Reason: "db2 refuses"}}
		}},
	} {
		in := situation{now: at.Add(7*time.Minute + 29*time.Second), health: new(failover.Health), status: new(failover.Status),
			stats: &stats.Snapshot{GovernedBy: stats.GovernedByDriver, Size: 3, MaxOverflow: 1, Endpoint: "db1", IsPrimary: true}}
		c.change(&in)
		all := in.problems()
		switch {
		case c.want == "" && len(all) > 0:
			t.Errorf("all is well, and the page says %q", all)
		case c.want != "" && (len(all) != 1 || all[0].Text != c.want || all[0].Do == ""):
			t.Errorf("%q\nwant %q", all, c.want)
		}
	}
}

// The move to another server stands before the calls that were lost by it.
func TestTheMoveExplainsWhatItCost(t *testing.T) {
	in := situation{now: time.Date(2024, 5, 1, 12, 4, 31, 0, time.UTC), health: new(failover.Health), status: new(failover.Status),
		stats: &stats.Snapshot{GovernedBy: stats.GovernedByDriver, Size: 3, Endpoint: "db2"}}
	in.status.History = []failover.Event{{Kind: failover.Failover, At: in.now.Add(-2 * time.Second), From: "db1", To: "db2", Reason: "db1 refuses"}}
	in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorOutcomeUnknown, Code: "reset", Count: 1, Last: in.now.Add(-2 * time.Second)}}
	all := in.problems()
	if len(all) != 2 || !strings.HasPrefix(all[0].Text, "On db2 since 12:04:29") || !strings.HasPrefix(all[1].Text, "1 call lost") {
		t.Errorf("%q", all)
	}
}

// The pool in trouble stands first, and the page doesn't say that all is well with it.
func TestTroubleFirst(t *testing.T) {
	if err := open(t, pgtest.Database(t)+"&pool_size=3", "a well one").Ping(); err != nil {
		t.Fatal(err)
	}
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
	if !strings.Contains(html, `<p class="story warn"><b>Paused for `) || strings.Count(html, "<b>All is well.</b>") != 1 {
		t.Error("the page doesn't say that a pool is paused, or says that all is well with it")
	}
}

// Of a pool that nobody has used the page says just that.
func TestAnUnusedPoolIsNotCalledWell(t *testing.T) {
	open(t, nowhere, "orders")
	open(t, nowhere, "parcels")
	html := get(t, "/", "")
	if strings.Count(html, `<p class="story unknown"><b>Not used yet.</b>`) != 2 || strings.Contains(html, "ll is well") ||
		strings.Count(html, `<span class="dot unknown" title="not used yet">`) != 2 || !strings.Contains(html, "none in trouble") {
		t.Error("the page says otherwise")
	}
}

// Calls that run out of time on a server that is there are a matter of that server, and the page has the question to ask it. Of one that is
// away it has none; nor is it the worst that there is while most calls get by.
func TestWhomToAskOfOverdueCalls(t *testing.T) {
	in := situation{now: time.Date(2024, 5, 1, 12, 4, 31, 0, time.UTC), health: new(failover.Health), status: new(failover.Status),
		stats: &stats.Snapshot{GovernedBy: stats.GovernedByDriver, Size: 3, Endpoint: "db1", IsPrimary: true}, present: sample{checkouts: 8}}
	in.stats.Errors = []stats.ErrorCount{{Kind: stats.ErrorOutcomeUnknown, Code: "deadline", Count: 4, Last: in.now.Add(-time.Second)}}
	in.usage = []leak.Usage{{Caller: "/x/a.go:1 example.com/x/y.f", TimedOut: 4}}
	in.health.Endpoints = []failover.EndpointHealth{{Endpoint: "db1", State: failover.Up, ResponseTime: time.Millisecond, LastCheck: in.now}}
	first := in.problems()[0]
	if first.Level != "bad" || first.Query != whoBlocksWhom || !strings.HasPrefix(first.Do, "The server is up, a probe took 1ms at 12:04:31: ") {
		t.Errorf("%+v", first)
	}
	in.health.Endpoints[0].State = failover.Down
	if first = in.problems()[0]; first.Query != "" || !strings.HasPrefix(first.Do, "No server answers") {
		t.Errorf("of a server that is down: %+v", first)
	}
	in.present.checkouts = 9
	if p, _ := overdue(&in); p.Level != "warn" {
		t.Errorf("of fewer than half of all calls: %+v", p)
	}
}

// What base drivers say of a dial is told in few words.
func TestPlainReasons(t *testing.T) {
	for reason, want := range map[string]string{
		"down: failed to connect to `user=app database=shop`: 127.0.0.1:5432 (127.0.0.1): dial error: dial tcp 127.0.0.1:5432: connect: connection refused": "down: connection refused",
		"down: dial tcp 127.0.0.1:5432: connect: connection refused":                                                                                        "down: connection refused",
		"down: failed to connect to `user=app database=shop`: 127.0.0.1:5432 (127.0.0.1): failed to receive message: read tcp 127.0.0.1:4->127.0.0.1:5432: " +
			"read: connection reset by peer": "down: connection reset by peer",
		"down: no answer to a probe within 5s": "down: no answer to a probe within 5s",
	} {
		if got := plain(reason); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Where checkouts have just failed the page says neither that all is well nor that none timed out, and when the last one did.
func TestFailuresAreNoWellBeing(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_size=1&max_overflow=0&pool_timeout=1ms", "orders")
	h := Handler()
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Ping(); !errors.Is(err, managedpg.ErrPoolTimeout) {
		t.Fatal(err)
	}
	c.Close()
	html := fetch(t, h, "/", "")
	for _, want := range []string{`<p class="story bad"><b>1 checkout failed in the last 5m, the last one at `, "<dt>Pool timeouts</dt><dd>1<span>in 5m; 1 in all, last at ",
		`<b>1 ×</b> pool_timeout <code>`} {
		if !strings.Contains(html, want) {
			t.Errorf("%q isn't on the page", want)
		}
	}
	if strings.Contains(html, "All is well") {
		t.Error("the page says that all is well")
	}
}
