// Package web is a page that shows all open pools of the program: in one sentence what is wrong now and what to do, the last half hour,
// which lines of code use the pool's time, wait, run out of time, and hold connections now, with the stacks that took them, the errors by
// kind, and the endpoints, how far standbys were behind, and the failovers.
//
//	mux.Handle("/debug/managedpg/", web.Handler())
//
// Mount it where net/http/pprof would go: not where the whole world can look. It changes nothing and answers GET and HEAD
// only; it shows callers, stacks, pprof labels, server names and the servers' error messages, and never a password or a
// statement. It is one page without anything from elsewhere, under a strict Content-Security-Policy, and works without
// JavaScript; with it, it refreshes itself. With "Accept: application/json" the same comes as JSON.
//
// With many pools the page is an overview that leads to each; ?pool=NAME shows one.
//
// The charts show samples that are taken once a second from when the handler is made, so that the past is there for whoever opens the
// page after an alert; those of the last five minutes are kept, and one of ten seconds of half an hour. ?last=5m and ?last=30m choose
// what they show. There is no goroutine to stop.
//
// Importing the package also publishes the pools to expvar; see package expvarstats.
package web
