package web

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// poolView is what the page shows of a pool.
type poolView struct {
	ID, Name string
	Stats    stats.Snapshot
	Governed bool
	Limit    int64            // -1: none, or unknown
	Limits   []driver.Setting // in force
	Settings []driver.Setting // what the pool was opened with
	Problems []problem        // the first is the sentence at the top
	Tiles    []tile
	Charts
	Latencies []bars
	Errors    []errorView
	People    // who uses it
	Servers   // where it leads
	wait      stats.Latency
}

// Charts are a pool's last minutes.
type Charts struct {
	Use     chart
	Rates   []chart
	Sampled string // for how long, if not for all of the charts
}

// tile is a figure with its name.
type tile struct{ Name, Value, More, Level string }

func (h *handler) pool(p *driver.Connector, window time.Duration, now time.Time, inFull bool) poolView {
	s := p.Stats()
	health, status := p.Health(), p.Failover()
	totals, _ := p.Totals()
	samples, before, lags := h.sampler.of(p, now, &totals)
	in := situation{now: now, stats: &s, health: &health, status: &status, usage: p.Usage(), holders: p.Holders(mostHolders),
		leaks: p.Leaks(), waiting: driver.Waiting(p), lags: lags,
		before: since(p, samples, now), present: samples[len(samples)-1]}
	v := poolView{ID: id("p", s.Name), Name: s.Name, Stats: s, Governed: s.GovernedBy == stats.GovernedByDriver, Limit: limit(&s),
		Limits: limits(p, &s), Settings: driver.Settings(p), Problems: in.problems()}
	if e := in.current(); e != nil {
		v.Unused = e.State == failover.Unknown
	}
	v.Leaked = len(in.leaks)
	v.wait = totals.CheckoutTime.Since(before.checkout)
	if !inFull {
		return v
	}
	v.Tiles = in.tiles(v.Governed)
	v.Use, v.Rates = charts(samples, now, window, v.Limit, v.Governed)
	if began := now.Sub(samples[0].at); began < window-2*interval {
		v.Sampled = short(began.Round(time.Second))
	}
	if v.Governed {
		v.Latencies = append(v.Latencies, histogram("Waiting", "for a connection", v.wait))
	}
	held := histogram("Holding", "a connection", totals.UseTime.Since(before.use))
	if longest := longestHold(in.usage); longest.Longest > 0 {
		held.By = fmt.Sprintf("longest %s, by %s", short(longest.Longest), shortCaller(longest.Caller))
	}
	v.Latencies = append(v.Latencies, held, histogram("Dialling", "a new connection", totals.CreateTime.Since(before.create)))
	for _, e := range s.Errors {
		v.Errors = append(v.Errors, errorView{e, clockTime(now, e.First), clockTime(now, e.Last), ago(now, e.Last)})
	}
	v.People.fill(&in)
	v.Servers.fill(&in, window)
	v.NoLeakDetection = in.holders == nil && s.CheckedOut > 0 && p.Holders(1) == nil
	return v
}

// limits are the sizes as they are now, and the times after which something is done.
func limits(p *driver.Connector, s *stats.Snapshot) (all []driver.Setting) {
	for _, setting := range driver.Settings(p) {
		switch setting.Key {
		case "pool_size":
			setting.Value = fmt.Sprint(s.Size)
		case "max_overflow":
			setting.Value = fmt.Sprint(s.MaxOverflow)
		case "pool_timeout", "leak_threshold":
		default:
			continue
		}
		if setting.Value != "0" {
			all = append(all, setting)
		}
	}
	return all
}

// since is the pool some minutes ago, or when it was opened.
func since(p *driver.Connector, samples []sample, now time.Time) sample {
	if now.Sub(p.Opened()) <= lately {
		return sample{at: p.Opened()}
	}
	for _, s := range samples {
		if now.Sub(s.at) <= lately {
			return s
		}
	}
	return samples[len(samples)-1]
}

// errorView is a kind of error and when it came.
type errorView struct {
	stats.ErrorCount
	FirstAt, LastAt, Ago string
}

// tiles are the figures at a glance: what is now, and what has been counted in the last minutes.
func (in *situation) tiles(governed bool) []tile {
	s := in.stats
	minutes := "in " + short(lately)
	seconds := max(1, in.now.Sub(in.before.at).Seconds())
	inUse := tile{Name: "In use", Value: fmt.Sprint(s.CheckedOut)}
	if limit(s) > 0 {
		inUse.More = fmt.Sprintf("of %d", limit(s))
	}
	all := []tile{inUse, {Name: "Free", Value: fmt.Sprint(s.CheckedIn)}}
	if governed {
		all = append(all, flagged(tile{Name: "Waiting", Value: fmt.Sprint(s.Waiting)}, "warn", s.Waiting > 0),
			in.errorTile("Pool timeouts", minutes, stats.ErrorPoolTimeout))
	}
	other := "Failed otherwise"
	if !governed {
		other = "Failed"
	}
	all = append(all, in.errorTile(other, minutes, stats.ErrorCheckout))
	leaked := tile{Name: "Held too long", Value: fmt.Sprint(len(in.leaks)), More: fmt.Sprintf("now; %d ever", s.TotalLeaks)}
	rate := tile{Name: "Checkouts", Value: fmt.Sprintf("%.3g", max(0, float64(in.present.checkouts-in.before.checkouts))/seconds),
		More: fmt.Sprintf("a second; %d in all", s.TotalCheckouts)}
	moves := tile{Name: "Failovers", Value: fmt.Sprint(s.FailoverCount)}
	if s.FailbackCount > 0 {
		moves.More = fmt.Sprintf("and %d back", s.FailbackCount)
	}
	return append(all, flagged(leaked, "bad", len(in.leaks) > 0), rate, moves)
}

func flagged(t tile, level string, really bool) tile {
	if really {
		t.Level = level
	}
	return t
}

// errorTile tells how often checkouts failed in the last minutes, and when the last time was.
func (in *situation) errorTile(title, minutes string, kind stats.ErrorKind) tile {
	sum, ever, last := sumOf(kind), int64(0), time.Time{}
	for _, e := range in.stats.Errors {
		if e.Kind == kind {
			if ever += e.Count; e.Last.After(last) {
				last = e.Last
			}
		}
	}
	n := max(0, in.present.errors[sum]-in.before.errors[sum])
	t := tile{Name: title, Value: fmt.Sprint(n), More: minutes}
	if ever > 0 {
		t.More += fmt.Sprintf("; %d in all, last at %s", ever, clockTime(in.now, last))
	}
	return flagged(t, "warn", n > 0)
}

// id names an element so that it is the same one at the next refresh.
func id(kind string, of ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return kind + "-" + hex.EncodeToString(sum[:8])
}

// longestHold is the line that held one connection for longest in the last minutes.
func longestHold(usage []leak.Usage) (longest leak.Usage) {
	for _, u := range usage {
		if u.Longest > longest.Longest {
			longest = u
		}
	}
	return longest
}
