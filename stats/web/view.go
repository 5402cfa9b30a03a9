package web

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

var (
	//go:embed page.html
	pageText string
	//go:embed style.css
	style string
	//go:embed refresh.js
	script string

	page = template.Must(template.New("page").Funcs(template.FuncMap{"short": short}).Parse(pageText))
)

// hash is a text as a Content-Security-Policy names it.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// mostInFull is how many pools are shown in full on one page; with more it is an overview.
const mostInFull = 8

// view is what the page shows.
type view struct {
	Style  template.CSS
	Script template.JS
	At     time.Time
	One    string // the pool asked for
	Rows   []row  // one for each pool, if there are several
	Pools  []poolView
}

type row struct {
	Name, Link                 string
	Level                      string
	Problem                    string // the first
	Used, Limit, Open, Waiting int64
	Share                      string // of a bar 100 wide
	WaitP99, Endpoint          string
	Leaked                     int64
}

func (h *handler) view(pools []*driver.Connector, one string, now time.Time) view {
	v := view{Style: template.CSS(style), Script: template.JS(script), At: now, One: one}
	for _, p := range pools {
		s, status := p.Stats(), p.Failover()
		health := p.Health()
		if len(pools) > 1 {
			v.Rows = append(v.Rows, overview(&s, &health, len(pools) > mostInFull))
		}
		if len(pools) <= mostInFull {
			v.Pools = append(v.Pools, h.pool(p, &s, &health, &status, now))
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b row) int { return rank(a.Level) - rank(b.Level) })
	slices.SortStableFunc(v.Pools, func(a, b poolView) int { return rank(worst(a.Problems)) - rank(worst(b.Problems)) })
	return v
}

func overview(s *stats.Snapshot, h *failover.Health, elsewhere bool) row {
	r := row{Name: s.Name, Link: "#" + id("p", s.Name), Limit: limit(s), Used: s.CheckedOut, Open: s.Open, Waiting: s.Waiting,
		Endpoint: s.Endpoint, Leaked: s.LeakedConnections, WaitP99: "-", Share: "0"}
	if elsewhere {
		r.Link = "?pool=" + url.QueryEscape(s.Name)
	}
	if s.GovernedBy == stats.GovernedByDriver {
		r.WaitP99 = short(s.CheckoutTime.P99)
	}
	if r.Limit > 0 {
		r.Share = number(100 * min(1, float64(s.CheckedOut)/float64(r.Limit)))
	}
	r.Level = "good"
	for _, p := range problems(s, h) {
		if r.Problem == "" || p.Level == "bad" && r.Level != "bad" {
			r.Level, r.Problem = p.Level, p.Text
		}
	}
	return r
}

type poolView struct { // More than 15 fields: one for each thing that the page shows of a pool.
	ID, Name, Governor string
	Stats              stats.Snapshot
	Governed           bool
	Limit              int64 // -1: none, or unknown
	Story              story
	Problems           []problem
	Users              []usageView
	Chart              chart
	Latencies          []bars
	Endpoints          []endpointView
	Events             []eventView
	FirstEndpoint      string
	Holders            []holderView
	Held               int64 // by how many connections Holders knows of
	More               int64 // holders that aren't listed
	NoLeakDetection    bool
}

// problem is something that the reader should know at once. Level is bad or warn.
type problem struct{ Level, Text string }

func limit(s *stats.Snapshot) int64 {
	if s.GovernedBy != stats.GovernedByDriver || s.MaxOverflow < 0 {
		return -1
	}
	return s.Size + s.MaxOverflow
}

func problems(s *stats.Snapshot, h *failover.Health) []problem {
	var all []problem
	add := func(level, format string, args ...any) {
		all = append(all, problem{level, fmt.Sprintf(format, args...)})
	}
	if s.Endpoint == "" {
		add("bad", "no usable endpoint")
	}
	if s.Paused > 0 {
		add("warn", "paused for %s", short(s.Paused))
	}
	if s.Waiting > 0 {
		level := "warn"
		if limit(s) > 0 && s.CheckedOut >= limit(s) {
			level = "bad"
		}
		add(level, "%s wait%s for a connection", count(s.Waiting, "checkout"), thirdPerson(s.Waiting))
	}
	if s.LeakedConnections > 0 {
		add("bad", "%s held for too long", count(s.LeakedConnections, "connection"))
	}
	if s.Endpoint != "" && !s.IsPrimary {
		add("warn", "not on the first endpoint")
	}
	for _, e := range h.Endpoints {
		if e.State == failover.Down || e.State == failover.Misconfigured {
			add("warn", "%s is %s", e.Endpoint, e.State)
		}
	}
	return all
}

func (h *handler) pool(p *driver.Connector, s *stats.Snapshot, health *failover.Health, status *failover.Status, now time.Time) poolView {
	v := poolView{ID: id("p", s.Name), Name: s.Name, Governor: s.GovernedBy, Stats: *s,
		Governed: s.GovernedBy == stats.GovernedByDriver, Limit: limit(s), Problems: problems(s, health)}
	usage := p.Usage()
	v.Story, v.Users = tell(s, health, status, usage), usedBy(usage)
	v.Chart = draw(h.sampler.of(p, sampleOf(now, s)), now, v.Limit)
	if v.Governed {
		v.Latencies = append(v.Latencies, histogram("Waiting", "for a connection", s.CheckoutTime))
	}
	v.Latencies = append(v.Latencies, histogram("Holding", "a connection", s.UseTime),
		histogram("Dialling", "a new connection", s.CreateTime))
	for i := range health.Endpoints {
		v.Endpoints = append(v.Endpoints, endpoint(&health.Endpoints[i], status.Current, now))
	}
	for _, e := range slices.Backward(status.History) {
		v.Events = append(v.Events, eventView{e, ago(now, e.At), short(e.Duration)})
	}
	v.holders(p, s, now)
	return v
}

type endpointView struct {
	failover.EndpointHealth
	Lag        string // how far its replay is behind
	Current    bool
	Level      string
	Checked    string // how long ago
	Response   string
	Rate       string
	Ticks      []tick // the last probes
	TicksWidth int
}

type tick struct {
	X     int
	Class string
	Title string
}

func endpoint(h *failover.EndpointHealth, current string, now time.Time) endpointView {
	e := endpointView{EndpointHealth: *h, Current: h.Endpoint == current, Level: "warn", Checked: "never", Response: "-", Rate: "-"}
	switch h.State {
	case failover.Up:
		e.Level = "good"
	case failover.Down, failover.Misconfigured:
		e.Level = "bad"
	}
	if !h.LastCheck.IsZero() {
		e.Checked = ago(now, h.LastCheck)
	}
	if h.TotalChecks > 0 {
		e.Rate = fmt.Sprintf("%.0f %%", h.SuccessRate)
	}
	e.Lag = short(h.ReplicationLag)
	if h.ResponseTime > 0 {
		e.Response = short(h.ResponseTime)
	}
	for i, c := range h.History {
		t := tick{X: 5 * i, Class: "good", Title: ago(now, c.At) + ": " + short(c.ResponseTime)}
		if !c.OK {
			t.Class, t.Title = "bad", ago(now, c.At)+": "+c.Error
		}
		e.Ticks = append(e.Ticks, t)
	}
	e.TicksWidth = 5 * len(e.Ticks)
	return e
}

type eventView struct {
	failover.Event
	Ago, Outage string
}

// holderView is a stack and all who hold a connection by it.
type holderView struct {
	ID       string
	Caller   string // short
	Full     string
	Stack    []string
	Reports  []reportView
	Longest  string
	Leaked   int
	Labelled bool
	longest  time.Duration
}

type reportView struct {
	leak.Report
	Held   string
	Labels string
	Leaked bool
}

func (v *poolView) holders(p *driver.Connector, s *stats.Snapshot, now time.Time) {
	leaked := map[uint64]bool{}
	for _, r := range p.Leaks() {
		leaked[r.ConnectionID] = true
	}
	groups := map[string]*holderView{}
	reports := p.Holders(mostHolders)
	for _, r := range reports {
		key := strings.Join(r.Stack, "\n")
		g := groups[key]
		if g == nil {
			g = &holderView{ID: id("h", v.Name, key), Caller: shortCaller(r.Caller), Full: r.Caller, Stack: r.Stack}
			groups[key] = g
		}
		g.Reports = append(g.Reports, reportView{r, short(r.Duration), labels(r.Labels), leaked[r.ConnectionID]})
		g.Labelled = g.Labelled || len(r.Labels) > 0
		g.longest = max(g.longest, r.Duration)
		g.Longest = short(g.longest)
		if leaked[r.ConnectionID] {
			g.Leaked++
		}
	}
	for _, g := range slices.SortedFunc(maps.Values(groups), func(a, b *holderView) int {
		return cmp.Or(cmp.Compare(b.longest, a.longest), cmp.Compare(a.ID, b.ID))
	}) {
		v.Holders = append(v.Holders, *g)
	}
	v.Held = int64(len(reports))
	v.More = max(0, s.CheckedOut-v.Held)
	v.NoLeakDetection = p.Holders(1) == nil && s.CheckedOut > 0
}

// id names an element so that it is the same one at the next refresh.
func id(kind string, of ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return kind + "-" + hex.EncodeToString(sum[:8])
}

// shortCaller is "file.go:12 function" of "/a/b/file.go:12 example.com/x/y.function".
func shortCaller(caller string) string {
	if caller == "" {
		return "unknown caller"
	}
	file, function, _ := strings.Cut(caller, " ")
	return path.Base(file) + " " + path.Base(function)
}

func labels(m map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, k+"="+m[k])
	}
	return strings.Join(all, ", ")
}

// short is a duration in three figures or so.
func short(d time.Duration) string {
	switch {
	case d >= time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	for unit := time.Second; unit > 1; unit /= 1000 {
		switch {
		case d >= 100*unit:
			return d.Round(unit).String()
		case d >= 10*unit:
			return d.Round(unit / 10).String()
		case d >= unit:
			return d.Round(unit / 100).String()
		}
	}
	return d.String()
}

func ago(now, at time.Time) string { return short(max(0, now.Sub(at)).Round(time.Second)) + " ago" }

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func thirdPerson(n int64) string {
	if n == 1 {
		return "s"
	}
	return ""
}
