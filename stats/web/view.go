package web

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/url"
	"slices"
	"time"

	"github.com/managedpg/managedpg/driver"
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
	Style   template.CSS
	Script  template.JS
	At      time.Time
	Process []string
	One     string // the pool asked for
	Ranges  []span
	Rows    []row // one for each pool, if there are several
	Trouble int   // of those, with a problem
	Pools   []poolView
}

// span is a choice of the time that the charts show.
type span struct {
	Name, Link string
	Chosen     bool
}

type row struct {
	Name, Link                 string
	Level                      string
	Problem                    string // the first
	Wellbeing                  string // if there is none
	Used, Limit, Open, Waiting int64
	Share                      string // of a bar 100 wide
	WaitP99, Endpoint          string
	Leaked                     int64
}

// request is what the reader asked for.
type request struct {
	pool   string
	window time.Duration // 0: as much as there are samples of
}

// windows are the times that the charts can show.
var windows = []struct {
	name   string
	window time.Duration
}{{"30m", past}, {"5m", recent}}

func requestOf(query url.Values) request {
	r := request{pool: query.Get("pool")}
	for _, w := range windows {
		if query.Get("last") == w.name {
			r.window = w.window
		}
	}
	return r
}

// link is a query for the same with another pool or window.
func link(pool string, window time.Duration) string {
	q := make(url.Values)
	if pool != "" {
		q.Set("pool", pool)
	}
	for _, w := range windows {
		if w.window == window {
			q.Set("last", w.name)
		}
	}
	return "?" + q.Encode()
}

func (h *handler) view(pools []*driver.Connector, asked request, now time.Time) view {
	v := view{Style: template.CSS(style), Script: template.JS(script), At: now, Process: process(now), One: asked.pool}
	shown := cmp.Or(asked.window, past)
	if asked.window == 0 && now.Sub(h.made) < recent {
		shown = recent
	}
	for _, w := range windows {
		v.Ranges = append(v.Ranges, span{w.name, link(asked.pool, w.window), w.window == shown})
	}
	inFull := len(pools) <= mostInFull
	for _, p := range pools {
		one := h.pool(p, shown, now, inFull)
		if len(pools) > 1 {
			v.Rows = append(v.Rows, one.overview(asked, inFull))
			if len(one.Problems) > 0 {
				v.Trouble++
			}
		}
		if inFull {
			v.Pools = append(v.Pools, one)
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b row) int { return rank(a.Level) - rank(b.Level) })
	slices.SortStableFunc(v.Pools, func(a, b poolView) int { return rank(worst(a.Problems)) - rank(worst(b.Problems)) })
	return v
}

func (v *poolView) overview(asked request, inFull bool) row {
	s := &v.Stats
	r := row{Name: s.Name, Link: "#" + v.ID, Limit: v.Limit, Used: s.CheckedOut, Open: s.Open, Waiting: s.Waiting,
		Endpoint: s.Endpoint, Leaked: int64(v.Leaked), WaitP99: "-", Share: "0", Level: worst(v.Problems)}
	if !inFull {
		r.Link = link(s.Name, asked.window)
	}
	if v.Governed {
		r.WaitP99 = short(v.wait.P99)
	}
	if r.Limit > 0 {
		r.Share = number(100 * min(1, float64(s.CheckedOut)/float64(r.Limit)))
	}
	switch {
	case len(v.Problems) > 0:
		r.Problem = v.Problems[0].Text
	case v.Unused:
		r.Level, r.Wellbeing = "unknown", "not used yet"
	default:
		r.Wellbeing = "all is well"
	}
	return r
}

// limit is how many connections there may be; -1: any number, or unknown.
func limit(s *stats.Snapshot) int64 {
	if s.GovernedBy != stats.GovernedByDriver || s.MaxOverflow < 0 {
		return -1
	}
	return s.Size + s.MaxOverflow
}
