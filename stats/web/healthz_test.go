package web

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func healthz(h http.Handler, method, target string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	body, _ := io.ReadAll(w.Result().Body)
	return w.Code, string(body)
}

// A pool that was never used is asked for, one that works is ready, and one whose server has died isn't.
func TestHealthz(t *testing.T) {
	server := pgtest.Start(t)
	db := open(t, server.DSNFor("postgres", "pool_size=2"), "orders")
	pool, _ := managedpg.PoolOf(db)
	all, one := Healthz(), Healthz(pool)
	if code, body := healthz(all, http.MethodGet, "/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("never used: %d %q", code, body)
	}
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	unused := open(t, nowhere, "unused")
	if code, body := healthz(one, http.MethodGet, "/readyz?verbose"); code != 200 || body != fmt.Sprintf("ok\n\"orders\": %s is up\n", pool.Stats().Endpoint) {
		t.Errorf("in use: %d %q", code, body)
	}
	if code, body := healthz(all, http.MethodGet, "/readyz"); code != 503 || body != "unavailable\n" {
		t.Errorf("with a pool that reaches no server: %d %q", code, body)
	}
	if _, body := healthz(all, http.MethodGet, "/readyz?verbose"); strings.Contains(body, "hunter2") || !strings.Contains(body, `"unused": 127.0.0.1:1/db is down`) {
		t.Errorf("the detail is %q", body)
	}
	unused.Close()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	db.Ping() // it fails, whereby the pool learns of it
	if code, _ := healthz(one, http.MethodGet, "/readyz"); code != 503 {
		t.Errorf("with the server dead: %d", code)
	}
	if code, body := healthz(one, http.MethodHead, "/readyz"); code != 503 || body != "" {
		t.Errorf("HEAD: %d %q", code, body)
	}
	if code, _ := healthz(one, http.MethodPost, "/readyz"); code != 405 {
		t.Errorf("POST: %d", code)
	}
}

// A mux that has the page with a slash at the end leads there from without one.
func TestTrailingSlash(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/debug/managedpg/", Handler())
	if code, _ := healthz(mux, http.MethodGet, "/debug/managedpg/"); code != 200 {
		t.Errorf("with a slash: %d", code)
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/managedpg?pool=x", nil))
	if at := w.Header().Get("Location"); at != "/debug/managedpg/?pool=x" {
		t.Errorf("without one: %d, to %q", w.Code, at)
	}
}
