package leak_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/leak"
)

//go:noinline
func thriftyCaller(s *leak.Slot, ctx context.Context, at time.Duration) { s.CheckOut(ctx, at) }

//go:noinline
func greedyCaller(s *leak.Slot, ctx context.Context, at time.Duration) { s.CheckOut(ctx, at) }

//go:noinline
func starvedCaller(s *leak.Slot, ctx context.Context, at time.Duration) { s.CheckOut(ctx, at) }

// near says whether a figure from samples is what it should be, within a tenth.
func near(got, want float64) bool { return math.Abs(got-want) <= want/10 }

// Samples add up to what was held, waited for and checked out, by short checkouts and by long ones.
func TestUsageByLineOfCode(t *testing.T) {
	tracker := leak.New(leak.Options{Pool: "app", StackDepth: 16, Base: time.Now()})
	s := tracker.Slot(1, "db:5432/app", 0, nil)
	defer s.Remove()
	at := time.Duration(0)
	orders := pprof.WithLabels(t.Context(), pprof.Labels("route", "/orders"))
	other := pprof.WithLabels(t.Context(), pprof.Labels("route", "/other"))
	hold := func(by func(*leak.Slot, context.Context, time.Duration), ctx context.Context, held, waited time.Duration) {
		s.Waited(waited)
		by(s, ctx, at)
		at += held
		s.CheckIn(at)
	}
	for n := range 40_000 {
		hold(thriftyCaller, t.Context(), time.Millisecond, 0)
		hold(starvedCaller, t.Context(), 100*time.Microsecond, time.Millisecond)
		if n%1000 == 0 {
			hold(greedyCaller, orders, 3*time.Second, 0)
			hold(greedyCaller, other, time.Second, 0)
		}
	}
	// 40 s, 4 s and 160 s have gone by in fake time, all of it within the window. The first two are sums of some 4,000 samples, so a
	// tenth is more than six times what they vary by.
	usage := tracker.UsageAt(at)
	if len(usage) != 3 {
		t.Fatalf("%d lines: %v", len(usage), usage)
	}
	for i, want := range []struct {
		function                       string
		checkouts, held, waited, share float64
	}{
		{"greedyCaller", 80, 160, 0, 160. / 204},
		{"thriftyCaller", 40_000, 40, 0, 40. / 204},
		{"starvedCaller", 40_000, 4, 40, 4. / 204},
	} {
		u := usage[i]
		if !strings.HasSuffix(u.Caller, want.function) {
			t.Errorf("place %d is %s, want %s", i, u.Caller, want.function)
		}
		if !near(float64(u.Checkouts), want.checkouts) || !near(u.Held.Seconds(), want.held) || !near(u.Waited.Seconds(), want.waited) || !near(u.Share, want.share) {
			t.Errorf("%s: %d checkouts, held %v, waited %v, share %.3f; want %v", want.function, u.Checkouts, u.Held, u.Waited, u.Share, want)
		}
	}
	if l := usage[0].Labels; len(l) != 2 || l[0].Value != "/orders" || !near(l[0].Share, 0.75) || l[1].Value != "/other" || !near(l[1].Share, 0.25) {
		t.Errorf("labels %v", l)
	}
}

// What is past the window no longer counts in Usage, and does in the profile.
func TestUsageForgets(t *testing.T) {
	tracker := leak.New(leak.Options{Pool: "app", StackDepth: 16, Base: time.Now()})
	s := tracker.Slot(1, "db:5432/app", 0, nil)
	defer s.Remove()
	const hour = time.Hour
	greedyCaller(s, t.Context(), 0)
	s.CheckIn(hour)
	if u := tracker.UsageAt(hour); len(u) != 1 || u[0].Held < leak.UsageWindow-10*time.Second || u[0].Held > leak.UsageWindow+10*time.Second {
		t.Errorf("of an hour %v is in the window", u)
	}
	if u := tracker.UsageAt(hour + leak.UsageWindow + time.Second); len(u) != 0 {
		t.Errorf("after the window there is still %v", u)
	}
	thriftyCaller(s, t.Context(), 2*hour)
	if u := tracker.UsageAt(2*hour + time.Minute); len(u) != 1 || u[0].Held != time.Minute || u[0].Checkouts != 1 {
		t.Errorf("what is held now: %v", u)
	}
	s.CheckIn(2*hour + time.Minute)

	path := filepath.Join(t.TempDir(), "usage.pb.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := leak.WriteUsageProfile(file); err != nil {
		t.Fatal(err)
	}
	file.Close()
	top := goToolPprof(t, "-top", path)
	_, lines, _ := strings.Cut(top, "cum%\n")
	if first, _, _ := strings.Cut(lines, "\n"); !strings.Contains(first, "greedyCaller") || !strings.Contains(first, "3600s") {
		t.Errorf("go tool pprof -top says\n%s", top)
	}
	profile := pprof.Lookup(leak.UsageProfileName)
	if profile == nil {
		t.Fatal("it isn't listed")
	}
	var text bytes.Buffer
	if err := profile.WriteTo(&text, 1); err != nil || !strings.Contains(text.String(), "managedpg.usage profile: total 2") {
		t.Errorf("as text (%v): %s", err, &text)
	}
}

func TestUsageJSON(t *testing.T) {
	b, err := json.Marshal(leak.Usage{Caller: "a.go:1 main.f", Checkouts: 2, Held: 1500 * time.Millisecond, Waited: time.Second, Longest: 500 * time.Millisecond, Now: 1, TimedOut: 3, Share: 0.5,
		Labels: []leak.LabelUsage{{Key: "route", Value: "/", Share: 1}}})
	const want = `{"caller":"a.go:1 main.f","checkouts":2,"now":1,"timed_out":3,"share":0.5,"labels":[{"key":"route","value":"/","share":1}],"held":1.5,"waited":1,"longest":0.5}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	if got := (leak.Usage{Share: 0.614}).String(); got != "61 % by an unknown caller" {
		t.Error(got)
	}
}
