package web

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
	_ "github.com/managedpg/managedpg/stats/expvarstats" // publishes
)

// Handler returns a handler for the page. Its path doesn't matter. It samples all pools from now on: make one, and keep it.
func Handler() http.Handler {
	h := &handler{made: time.Now()}
	h.sampler.tick()
	return h
}

type handler struct {
	made    time.Time
	sampler sampler
}

// policy allows the page's own style and script by their hashes, requests to where the page came from, and nothing else.
// No script may make HTML of a string.
var policy = strings.Join([]string{
	"default-src 'none'", "style-src " + hash(style), "script-src " + hash(script), "connect-src 'self'", "img-src data:",
	"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
	"require-trusted-types-for 'script'", "trusted-types 'none'",
}, "; ")

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "Only GET and HEAD are answered here.", http.StatusMethodNotAllowed)
		return
	}
	header.Set("Vary", "Accept")
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	pools, status := chosen(r)
	var body bytes.Buffer
	var err error
	if wantsJSON(r.Header.Values("Accept")) {
		header.Set("Content-Type", "application/json; charset=utf-8")
		err = json.NewEncoder(&body).Encode(document(pools))
	} else {
		header.Set("Content-Type", "text/html; charset=utf-8")
		err = page.Execute(&body, h.view(pools, requestOf(r.URL.Query()), time.Now()))
	}
	if err != nil {
		http.Error(w, "managedpg: the page could not be made", http.StatusInternalServerError)
		return
	}
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	if r.Method == http.MethodGet {
		body.WriteTo(w) // an error means that the reader has gone
	}
}

// chosen are the pools asked for: all, or the one of ?pool=.
func chosen(r *http.Request) ([]*driver.Connector, int) {
	pools := driver.Connectors()
	name := r.URL.Query().Get("pool")
	if name == "" {
		return pools, http.StatusOK
	}
	for _, p := range pools {
		if p.Name() == name {
			return []*driver.Connector{p}, http.StatusOK
		}
	}
	return nil, http.StatusNotFound
}

// mostHolders bounds how many holders of a pool are told, the longest first.
const mostHolders = 200

// poolDocument is a pool in the JSON.
type poolDocument struct {
	Stats    stats.Snapshot  `json:"stats"`
	Health   failover.Health `json:"health"`
	Failover failover.Status `json:"failover"`
	Holders  []leak.Report   `json:"holders"` // who has a connection now, the longest first; 200 at most
	Leaks    []leak.Report   `json:"leaks"`   // those held for longer than leak_threshold
	Usage    []leak.Usage    `json:"usage"`   // which lines of code used the pool's time in the last five minutes
	Waiting  []leak.Waiting  `json:"waiting"` // at which lines of code checkouts wait now
}

func document(pools []*driver.Connector) any {
	all := make([]poolDocument, 0, len(pools))
	for _, p := range pools {
		all = append(all, poolDocument{
			Stats: p.Stats(), Health: p.Health(), Failover: p.Failover(),
			Holders: append([]leak.Report{}, p.Holders(mostHolders)...), // never null
			Leaks:   append([]leak.Report{}, p.Leaks()...),
			Usage:   append([]leak.Usage{}, p.Usage()...),
			Waiting: append([]leak.Waiting{}, driver.Waiting(p)...),
		})
	}
	return map[string]any{"pools": all}
}

// wantsJSON is whether a reader prefers JSON to HTML, by RFC 9110: the most specific range counts, and a tie goes to HTML.
func wantsJSON(accept []string) bool {
	json, html := quality(accept, "application", "json"), quality(accept, "text", "html")
	return json > html
}

func quality(accept []string, kind, subtype string) float64 {
	q, specific := 0.0, -1
	for _, r := range strings.Split(strings.Join(accept, ","), ",") {
		media, params, _ := strings.Cut(r, ";")
		media = strings.ToLower(strings.TrimSpace(media))
		var s int
		switch media {
		case kind + "/" + subtype:
			s = 2
		case kind + "/*":
			s = 1
		case "*/*":
			s = 0
		default:
			continue
		}
		if s > specific {
			q, specific = weight(params), s
		}
	}
	return q
}

func weight(params string) float64 {
	for _, p := range strings.Split(params, ";") {
		if name, value, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(value, 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}
