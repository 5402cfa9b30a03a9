package stats

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The names that the design fixes, in its order.
var (
	governedNames = strings.Fields(`name governed_by size max_overflow min_idle open checked_out checked_in overflow waiting utilization
		queue_standing newest_first dialling orphaned_dials paused
		total_checkouts total_checkins failed_checkouts checkout_timeouts total_connections_created total_connections_closed
		closed_by avg_checkout_time checkout_time use_time create_time
		cancels_sent cancels_confirmed cancels_too_late cancels_unanswered unknown_outcomes lost_transactions errors leaked_connections total_leaks reclaimed_connections
		longest_holders endpoint is_primary failover_count failback_count`)
	// What a driver can't know when database/sql governs.
	leftOut = strings.Fields(`size max_overflow min_idle overflow waiting utilization queue_standing newest_first dialling orphaned_dials paused checkout_timeouts avg_checkout_time checkout_time`)
)

func TestSnapshotJSONNames(t *testing.T) {
	bySQL := slices.DeleteFunc(slices.Clone(governedNames), func(n string) bool { return slices.Contains(leftOut, n) })
	for governor, want := range map[string][]string{GovernedByDriver: governedNames, GovernedBySQL: bySQL} {
		if got := names(t, Snapshot{GovernedBy: governor}); !slices.Equal(got, want) {
			t.Errorf("governed by %s: %q\nwant %q", governor, got, want)
		}
	}
}

// Every field of a Snapshot has its name in the JSON, by the rule of CamelCase and snake_case.
func TestSnapshotJSONHasEveryField(t *testing.T) {
	typ := reflect.TypeFor[Snapshot]()
	for i := range typ.NumField() {
		if name := snake(typ.Field(i).Name); !slices.Contains(governedNames, name) {
			t.Errorf("%s isn't in the JSON as %s", typ.Field(i).Name, name)
		}
	}
	if typ.NumField() != len(governedNames) {
		t.Errorf("%d fields, %d names", typ.NumField(), len(governedNames))
	}
}

func snake(camel string) string {
	var b strings.Builder
	for i, r := range camel {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r |= 0x20
		}
		b.WriteRune(r)
	}
	return b.String()
}

// names are the keys of the JSON object in their order.
func names(t *testing.T, s Snapshot) []string {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	var keys []string
	depth, key := 0, true
	for {
		token, err := d.Token()
		if err == io.EOF {
			return keys
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		switch token := token.(type) {
		case json.Delim:
			if token == '{' || token == '[' {
				depth++
			} else {
				depth--
			}
			key = true
		case string:
			if depth == 1 && key {
				keys = append(keys, token)
			}
			key = !key
		default:
			key = true
		}
	}
}

func TestSnapshotJSON(t *testing.T) {
	s := Snapshot{Name: `db "x"`, GovernedBy: GovernedByDriver, Size: 5, MaxOverflow: -1, Utilization: 0.5, IsPrimary: true,
		AvgCheckoutTime: 1500 * time.Microsecond, ClosedBy: ClosedBy{ClosedIdle: 2}, UseTime: Latency{Count: 1, Max: time.Second}}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"db \"x\""`, `"governed_by":"driver"`, `"max_overflow":-1`, `"utilization":0.5`,
		`"avg_checkout_time":0.0015`, `"closed_by":{"broken":0,"discarded":0,"overflow":0,"recycle":0,"idle":2,"drain":0,"endpoint":0,"reclaimed":0,"shutdown":0}`, `"is_primary":true`,
		`"use_time":{"count":1,"mean":0,"p50":0,"p90":0,"p99":0,"max":1}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s isn't in %s", want, text)
		}
	}
	if indented, err := json.MarshalIndent([]Snapshot{s}, "", "  "); err != nil || !json.Valid(indented) {
		t.Errorf("a list of snapshots, indented: %v", err)
	}
}

func TestSnapshotString(t *testing.T) {
	s := Snapshot{Name: "app", GovernedBy: GovernedByDriver, Size: 5, MaxOverflow: 3, Open: 6, CheckedOut: 2, Overflow: 1,
		Utilization: 0.25, AvgCheckoutTime: 1234567 * time.Nanosecond, ClosedBy: ClosedBy{ClosedRecycle: 1, ClosedIdle: 3},
		CheckoutTime: Latency{Count: 7, Mean: 1234567, P50: 1000, P90: 2 * time.Second, P99: 2 * time.Second, Max: 3 * time.Second}}
	text := s.String()
	for _, want := range []string{
		"name                       app\n",
		"utilization                25 %\n",
		"avg_checkout_time          1.23ms\n",
		"closed_by                  1 recycle, 3 idle\n",
		"checkout_time              7 times, mean 1.23ms, p50 1µs, p90 2s, p99 2s, max 3s\n",
		"use_time                   0 times, mean 0s, p50 0s, p90 0s, p99 0s, max 0s\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q isn't in\n%s", want, text)
		}
	}
	if lines := strings.Count(text, "\n"); lines != len(governedNames) {
		t.Errorf("%d lines, want one for each of %d figures", lines, len(governedNames))
	}
	text = Snapshot{Name: "app", GovernedBy: GovernedBySQL}.String()
	for _, name := range leftOut {
		if strings.Contains(text, "\n"+name+" ") {
			t.Errorf("%s is told when database/sql governs", name)
		}
	}
	if !strings.Contains(text, "closed_by                  -\n") {
		t.Errorf("no dash for nothing closed in\n%s", text)
	}
}

func TestClosedReasons(t *testing.T) {
	seen := map[string]bool{}
	for c := range numClosed {
		if name := c.String(); name == "" || seen[name] {
			t.Errorf("reason %d is called %q", c, name)
		} else {
			seen[name] = true
		}
	}
}

// The equations of Snapshot hold at every moment, whatever is counted and reset meanwhile.
func TestEquationsUnderLoad(t *testing.T) {
	var r Recorder
	stop := make(chan struct{})
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := r.Created(time.Millisecond)
				for range 3 {
					c.CheckedOutAfter(time.Microsecond)
					c.CheckedIn(time.Microsecond)
				}
				c.Closed(ClosedIdle)
			}
		})
	}
	var before Snapshot
	for i := range 300 {
		s := fill(&r)
		wantEquations(t, s)
		if s.TotalCheckouts < before.TotalCheckouts || s.TotalConnectionsCreated < before.TotalConnectionsCreated ||
			s.TotalCheckins < before.TotalCheckins || s.TotalConnectionsClosed < before.TotalConnectionsClosed {
			t.Fatalf("a total has gone down: %+v\nafter %+v", s, before)
		}
		before = s
		// Each of the users has at most one of either.
		if s.Open < 0 || s.Open > 4 || s.CheckedOut < 0 || s.CheckedOut > 4 {
			t.Fatalf("open %d, checked out %d, with 4 users", s.Open, s.CheckedOut)
		}
		if open, out := r.Now(); open < 0 || out < 0 {
			t.Fatalf("now: open %d, checked out %d", open, out)
		}
		if i%30 == 0 {
			r.Reset()
			before = Snapshot{}
		}
	}
	close(stop)
	users.Wait()
	s := fill(&r)
	wantAtRest(t, s)
	if s.Open != 0 || s.CheckedOut != 0 {
		t.Errorf("open %d, checked out %d after all", s.Open, s.CheckedOut)
	}
}

func fill(r *Recorder) Snapshot {
	s := Snapshot{GovernedBy: GovernedByDriver, Size: 5, MaxOverflow: 3}
	r.Fill(&s)
	return s
}

func wantEquations(t *testing.T, s Snapshot) {
	t.Helper()
	if s.TotalCheckouts != s.TotalCheckins+s.CheckedOut {
		t.Fatalf("%d checkouts, %d check-ins, %d checked out", s.TotalCheckouts, s.TotalCheckins, s.CheckedOut)
	}
	if s.TotalConnectionsCreated != s.TotalConnectionsClosed+s.Open {
		t.Fatalf("%d created, %d closed, %d open", s.TotalConnectionsCreated, s.TotalConnectionsClosed, s.Open)
	}
	if s.TotalCheckins < 0 || s.TotalConnectionsClosed < 0 {
		t.Fatalf("%d check-ins, %d closed", s.TotalCheckins, s.TotalConnectionsClosed)
	}
}

// wantAtRest checks besides what holds when nobody is counting.
func wantAtRest(t *testing.T, s Snapshot) {
	t.Helper()
	wantEquations(t, s)
	var closed int64
	for _, n := range s.ClosedBy {
		closed += n
	}
	if closed != s.TotalConnectionsClosed {
		t.Fatalf("%d closed, by reason %v", s.TotalConnectionsClosed, s.ClosedBy)
	}
	if s.TotalCheckins != s.UseTime.Count {
		t.Fatalf("%d check-ins, %d of them with a time", s.TotalCheckins, s.UseTime.Count)
	}
}

// After a reset what is open and in use counts as opened and checked out since, and nothing else counts.
func TestReset(t *testing.T) {
	var r Recorder
	var conns [3]*ConnRecorder
	for i := range conns {
		conns[i] = r.Created(time.Second)
		conns[i].CheckedOutAfter(time.Second)
	}
	conns[0].CheckedIn(time.Hour)
	conns[0].Closed(ClosedRecycle)
	r.CheckoutFailed(true)
	r.CheckoutFailed(false)

	s := fill(&r)
	wantAtRest(t, s)
	want := Snapshot{Open: 2, CheckedOut: 2, TotalCheckouts: 3, TotalCheckins: 1, FailedCheckouts: 2, CheckoutTimeouts: 1,
		TotalConnectionsCreated: 3, TotalConnectionsClosed: 1, Utilization: 0.25}
	wantCounts(t, "before the reset", s, want)
	if s.ClosedBy[ClosedRecycle] != 1 || s.CheckoutTime.Count != 3 || s.AvgCheckoutTime != time.Second || s.UseTime.Max != time.Hour {
		t.Errorf("before the reset: %+v", s)
	}

	r.Reset()
	s = fill(&r)
	wantAtRest(t, s)
	want = Snapshot{Open: 2, CheckedOut: 2, TotalCheckouts: 2, TotalConnectionsCreated: 2, Utilization: 0.25}
	wantCounts(t, "after the reset", s, want)
	for name, l := range map[string]Latency{"checkout": s.CheckoutTime, "use": s.UseTime, "create": s.CreateTime} {
		if l != (Latency{}) {
			t.Errorf("after the reset %s time is %+v", name, l)
		}
	}

	conns[1].CheckedIn(time.Millisecond)
	conns[1].Closed(ClosedIdle)
	s = fill(&r)
	wantAtRest(t, s)
	want = Snapshot{Open: 1, CheckedOut: 1, TotalCheckouts: 2, TotalCheckins: 1, TotalConnectionsCreated: 2,
		TotalConnectionsClosed: 1, Utilization: 0.125}
	wantCounts(t, "later", s, want)
	if s.UseTime.Max != time.Millisecond || s.UseTime.Count != 1 || s.ClosedBy[ClosedRecycle] != 0 || s.ClosedBy[ClosedIdle] != 1 {
		t.Errorf("later: %+v", s)
	}

	r.Reset()
	wantCounts(t, "after a second reset", fill(&r), Snapshot{Open: 1, CheckedOut: 1, TotalCheckouts: 1,
		TotalConnectionsCreated: 1, Utilization: 0.125})
}

func wantCounts(t *testing.T, when string, got, want Snapshot) {
	t.Helper()
	pick := func(s Snapshot) [10]any {
		return [10]any{s.Open, s.CheckedOut, s.Waiting, s.TotalCheckouts, s.TotalCheckins, s.FailedCheckouts, s.CheckoutTimeouts,
			s.TotalConnectionsCreated, s.TotalConnectionsClosed, s.Utilization}
	}
	if pick(got) != pick(want) {
		t.Errorf("%s: %v\nwant %v", when, pick(got), pick(want))
	}
}

func TestDerivedFigures(t *testing.T) {
	var r Recorder
	for i := range 7 {
		if c := r.Created(0); i < 6 {
			c.CheckedOutAfter(0)
		}
	}
	s := fill(&r)
	if s.CheckedIn != 1 || s.Overflow != 2 || s.Utilization != 0.75 {
		t.Errorf("checked in %d, overflow %d, utilization %v; want 1, 2, 0.75", s.CheckedIn, s.Overflow, s.Utilization)
	}
	s = Snapshot{GovernedBy: GovernedByDriver, Size: 5, MaxOverflow: -1}
	r.Fill(&s)
	if s.Utilization != 0 || s.Overflow != 2 {
		t.Errorf("without a limit: utilization %v, overflow %d; want 0, 2", s.Utilization, s.Overflow)
	}
	s = Snapshot{GovernedBy: GovernedBySQL}
	r.CheckoutFailed(true)
	r.Fill(&s)
	if s.CheckoutTimeouts != 0 || s.CheckoutTime.Count != 0 || s.Overflow != 0 || s.FailedCheckouts != 1 {
		t.Errorf("governed by database/sql: %+v", s)
	}
}

// Totals go on counting over a reset, since a counter that goes back would count as a restart.
func TestTotals(t *testing.T) {
	var r Recorder
	count := func() {
		c := r.Created(time.Second)
		c.CheckedOutAfter(time.Minute)
		c.CheckedIn(time.Hour)
		c.Closed(ClosedDrain)
		r.CheckoutFailed(true)
	}
	count()
	r.Reset()
	r.Created(time.Second).CheckedOutAfter(time.Millisecond)
	s := Snapshot{GovernedBy: GovernedByDriver, Size: 5}
	r.FillTotals(&s)
	wantEquations(t, s)
	wantCounts(t, "after a reset", s, Snapshot{CheckedOut: 1, TotalCheckouts: 2, TotalCheckins: 1, FailedCheckouts: 1,
		CheckoutTimeouts: 1, Open: 1, TotalConnectionsCreated: 2, TotalConnectionsClosed: 1, Utilization: 0.2})
	if s.ClosedBy != (ClosedBy{ClosedDrain: 1}) || s.CheckoutTime.Count != 2 || s.CheckoutTime.Max != time.Minute ||
		s.CheckoutTime.Sum != time.Minute+time.Millisecond || s.UseTime.P99 == 0 {
		t.Errorf("after a reset: %+v", s)
	}
	if s = fill(&r); s.CheckoutTime.Max != time.Millisecond || s.CheckoutTime.Sum != time.Millisecond {
		t.Errorf("since the reset: %+v", s.CheckoutTime)
	}
}

func TestSnapshotAllocatesNothing(t *testing.T) {
	var r Recorder
	r.Created(0).CheckedOutAfter(time.Millisecond)
	if n := testing.AllocsPerRun(100, func() { fill(&r) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
