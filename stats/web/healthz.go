package web

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
)

// Healthz answers whether the program can reach its databases: 200 when the current endpoint of each of the pools is up, 503 when one isn't.
// Without pools it asks after all that are open at the time of the request. What isn't known to be up is probed first
// ([managedpg.Pool.CheckNow]), within the request's context and health_check_timeout, so that a pool that nobody has used yet isn't
// taken for healthy, nor for ill.
//
//	mux.Handle("/readyz", web.Healthz())
//
// It is meant for readiness, not for liveness: a program that is restarted because its database is away finds no other database.
// The answer is one word; with ?verbose a line for each pool tells the state of its endpoints. It answers GET and HEAD only.
func Healthz(pools ...*managedpg.Pool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Only GET and HEAD are answered here.", http.StatusMethodNotAllowed)
			return
		}
		asked := pools
		if len(asked) == 0 {
			asked = managedpg.Pools()
		}
		found := make([]failover.Health, len(asked))
		var checks sync.WaitGroup
		for i, p := range asked {
			checks.Go(func() {
				if found[i] = p.Health(); !found[i].Healthy {
					found[i] = p.CheckNow(r.Context())
				}
			})
		}
		checks.Wait()
		status, answer := http.StatusOK, "ok\n"
		for _, h := range found {
			if !h.Healthy {
				status, answer = http.StatusServiceUnavailable, "unavailable\n"
			}
		}
		if r.URL.Query().Has("verbose") {
			for i, p := range asked {
				answer += states(p.Name(), &found[i])
			}
		}
		header := w.Header()
		header.Set("Content-Type", "text/plain; charset=utf-8")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		if r.Method == http.MethodGet {
			fmt.Fprint(w, answer)
		}
	})
}

// states is a pool's line: its name, and each endpoint with its state.
func states(name string, h *failover.Health) string {
	var each []string
	for _, e := range h.Endpoints {
		each = append(each, fmt.Sprintf("%s is %s", e.Endpoint, e.State))
	}
	return fmt.Sprintf("%q: %s\n", name, strings.Join(each, ", "))
}
