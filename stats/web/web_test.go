package web

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(pgtest.Suite(m))
}

// nowhere is a database that isn't connected to.
const nowhere = "postgres://app:hunter2@127.0.0.1:1/db?pool_size=3&max_overflow=1"

func open(t *testing.T, dsn, name string) *sql.DB {
	t.Helper()
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.PoolName = name
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func do(t *testing.T, method, target, accept string) *http.Response {
	t.Helper()
	return ask(Handler(), method, target, accept)
}

func ask(h http.Handler, method, target, accept string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// fetch is the page of a handler that has been there for a while.
func fetch(t *testing.T, h http.Handler, target, accept string) string {
	t.Helper()
	body, err := io.ReadAll(ask(h, http.MethodGet, target, accept).Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func get(t *testing.T, target, accept string) string {
	t.Helper()
	return fetch(t, Handler(), target, accept)
}

func TestMethods(t *testing.T) {
	for method, want := range map[string]int{
		http.MethodGet: 200, http.MethodHead: 200, http.MethodPost: 405, http.MethodPut: 405, http.MethodDelete: 405,
		http.MethodOptions: 405, http.MethodPatch: 405,
	} {
		r := do(t, method, "/", "")
		if r.StatusCode != want {
			t.Errorf("%s: %s, want %d", method, r.Status, want)
		}
		if want == 405 && r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: Allow %q", method, r.Header.Get("Allow"))
		}
		body, _ := io.ReadAll(r.Body)
		if method == http.MethodHead && (len(body) > 0 || r.ContentLength <= 0) {
			t.Errorf("HEAD: %d bytes, content length %d", len(body), r.ContentLength)
		}
	}
}

func TestAccept(t *testing.T) {
	for accept, want := range map[string]string{
		"":                 "text/html",
		"*/*":              "text/html",
		"application/json": "application/json",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html",
		"application/json, text/html;q=0.9":                               "application/json",
		"application/json;q=0.1, */*;q=0.5":                               "text/html",
		"Application/JSON; charset=utf-8":                                 "application/json",
		"application/*":                                                   "application/json",
		"application/json;q=0":                                            "text/html",
		"application/json;q=nonsense":                                     "text/html",
		"image/png":                                                       "text/html",
	} {
		r := do(t, http.MethodGet, "/", accept)
		if got := r.Header.Get("Content-Type"); !strings.HasPrefix(got, want) || r.Header.Get("Vary") != "Accept" {
			t.Errorf("Accept %q: %s, Vary %q; want %s", accept, got, r.Header.Get("Vary"), want)
		}
	}
}

// The policy allows exactly the style and the script that are in the page.
func TestPolicy(t *testing.T) {
	open(t, nowhere, "orders")
	r := do(t, http.MethodGet, "/", "")
	body, _ := io.ReadAll(r.Body)
	policy := r.Header.Get("Content-Security-Policy")
	for _, tag := range []string{"style", "script"} {
		parts := regexp.MustCompile("(?s)<"+tag+">(.*?)</"+tag+">").FindAllSubmatch(body, -1)
		if len(parts) != 1 {
			t.Fatalf("%d times <%s>", len(parts), tag)
		}
		sum := sha256.Sum256(parts[0][1])
		if want := tag + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(policy, want) {
			t.Errorf("%s isn't in %s", want, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") {
		t.Errorf("the policy is %s", policy)
	}
	if found := regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|https?://|javascript:`).FindString(string(body)); found != "" {
		t.Errorf("the page has %q", found)
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Everything from outside stays text, and no secret gets out.
func TestHostile(t *testing.T) {
	const hostile = `<script>alert(1)</script>"'&amp;<!-- </svg>{{.}}`
	db := open(t, strings.Replace(pgtest.Database(t), "postgres@", "postgres:hunter2@", 1)+"&pool_size=3", hostile)
	var rows *sql.Rows
	var err error
	pprof.Do(context.Background(), pprof.Labels("job", `</td><b id="x">`), func(ctx context.Context) {
		rows, err = db.QueryContext(ctx, "SELECT 'a statement of mine' WHERE $1 = 'an argument'", "an argument")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for accept, format := range map[string]string{"text/html": "html", "application/json": "json"} {
		body := get(t, "/", accept)
		for _, never := range []string{"<script>alert", `<b id="x">`, "hunter2", "statement of mine", "an argument"} {
			if strings.Contains(body, never) {
				t.Errorf("%q is in the %s", never, format)
			}
		}
		if !strings.Contains(body, "TestHostile") {
			t.Errorf("the holder's function isn't in the %s", format)
		}
	}
	html := get(t, "/", "")
	for _, want := range []string{"&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;amp;&lt;!-- &lt;/svg&gt;{{.}}</h2>", "job=&lt;/td&gt;",
		"<small>job=&lt;/td&gt;&lt;b id=&#34;x&#34;&gt; 100 %</small>"} {
		if !strings.Contains(html, want) {
			t.Errorf("%q isn't in the page", want)
		}
	}
	html = get(t, `/?pool=%22%3E%3Cscript%3Ealert(1)%3C/script%3E`, "")
	if strings.Contains(html, "<script>alert") || !strings.Contains(html, "no open pool with this name") {
		t.Error("the name asked for isn't escaped")
	}
}

func TestJSON(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_size=3&leak_threshold=1ms", "orders")
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	time.Sleep(2 * time.Millisecond)
	type document struct {
		Pools []struct {
			Stats    struct{ Name, Endpoint string }
			Health   struct{ Healthy bool }
			Failover struct{ Current string }
			Holders  []struct{ Caller string }
			Leaks    []struct{ Stack []string }
			Usage    []struct{ Caller string }
			Waiting  []struct{ Caller string }
		}
	}
	var d document
	if err := json.Unmarshal([]byte(get(t, "/", "application/json")), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Pools) != 1 {
		t.Fatalf("%+v", d)
	}
	p := d.Pools[0]
	if p.Stats.Name != "orders" || p.Stats.Endpoint == "" || p.Failover.Current != p.Stats.Endpoint || !p.Health.Healthy ||
		len(p.Holders) != 1 || !strings.Contains(p.Holders[0].Caller, "TestJSON") || len(p.Leaks) != 1 || len(p.Leaks[0].Stack) == 0 ||
		len(p.Usage) != 1 || p.Usage[0].Caller != p.Holders[0].Caller || p.Waiting == nil {
		t.Errorf("%+v", p)
	}
	db.Close()
	if got := strings.TrimSpace(get(t, "/", "application/json")); got != `{"pools":[]}` {
		t.Errorf("without a pool: %s", got)
	}
}

// The page says which program of which host it is of, what its pools' limits are, and in which zone its times are; no password.
func TestWhatItIsOf(t *testing.T) {
	db := open(t, nowhere+"&pool_timeout=2s&leak_threshold=7m&failover_urls=postgres%3A%2F%2Fapp%3Ahunter2%40127.0.0.1%3A2%2Fdb", "orders")
	pool, _ := managedpg.PoolOf(db)
	if err := pool.Resize(5, 2); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	html := get(t, "/", "")
	for _, want := range []string{"<span>" + host + "</span>", fmt.Sprintf("<span>pid %d</span>", os.Getpid()), "<span>up ", "<span>go1.", "<span>times in ",
		"<p>governed by the driver · pool_size 5 · max_overflow 2 · pool_timeout 2s · leak_threshold 7m</p>",
		"<dt>pool_size</dt><dd>3</dd>", "<dt>failover_timeout</dt><dd>30s</dd>"} {
		if !strings.Contains(html, want) {
			t.Errorf("%q isn't on the page", want)
		}
	}
	if strings.Contains(html, "hunter2") || strings.Contains(html, "failover_urls") {
		t.Error("the page has a password")
	}
}

// Few pools are all on the page; of many there is an overview that leads to each.
func TestManyPools(t *testing.T) {
	if html := get(t, "/", ""); !strings.Contains(html, "No pool is open") {
		t.Error("the page doesn't say that there is no pool")
	}
	for i := range mostInFull + 1 {
		if i > 1 && i <= mostInFull {
			html := get(t, "/", "")
			if n := strings.Count(html, `<section class="pool"`); n != i {
				t.Errorf("%d of %d pools in full", n, i)
			}
			if !strings.Contains(html, `href="#`+id("p", "pool 1")+`"`) {
				t.Error("the overview leads nowhere")
			}
		}
		open(t, nowhere, fmt.Sprintf("pool %d", i))
	}
	html := get(t, "/", "")
	if strings.Contains(html, `<section class="pool"`) || !strings.Contains(html, `href="?pool=pool&#43;3"`) && !strings.Contains(html, `href="?pool=pool+3"`) {
		t.Error("the overview of many pools is none")
	}
	html = get(t, "/?pool=pool+3", "")
	if strings.Count(html, `<section class="pool"`) != 1 || !strings.Contains(html, ">pool 3</h2>") {
		t.Error("?pool= doesn't show one")
	}
	if r := do(t, http.MethodGet, "/?pool=none", ""); r.StatusCode != http.StatusNotFound {
		t.Errorf("a pool that isn't there: %s", r.Status)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 512: "512ns", 1234: "1.23µs", 12345 * time.Microsecond: "12.3ms", 123456 * time.Microsecond: "123ms",
		4567 * time.Millisecond: "4.57s", 12345 * time.Millisecond: "12.3s", 5 * time.Minute: "5m", 75 * time.Second: "1m15s", 90 * time.Minute: "1h30m",
		50 * time.Hour: "50h",
	} {
		if got := short(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
