package web_test

import (
	"log"
	"net/http"

	"github.com/managedpg/managedpg/stats/web"
)

// On a port of its own, beside net/http/pprof, and not where the whole world can look.
func ExampleHandler() {
	mux := http.NewServeMux()
	mux.Handle("/debug/managedpg/", web.Handler())
	log.Fatal(http.ListenAndServe("127.0.0.1:6060", mux))
}
