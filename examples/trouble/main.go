// Trouble: the six symptoms of docs/troubleshooting.md, each made on a throwaway PostgreSQL of its own, and what tells the
// cause.
//
//	go run ./examples/trouble                 all six, one after the other
//	go run ./examples/trouble -hold exhausted one of them, which goes on until Ctrl-C, with managedpg's page to look at
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/managedpg/managedpg/stats/web"
)

// symptoms are what somebody on call sees first.
var symptoms = []struct {
	name, seen string
	make       func(context.Context, *scene) error
}{
	{"exhausted", "The pool is exhausted: calls fail with \"no connection within 1s\"", exhausted},
	{"deploy", "Everything is slower since the last deploy", deploy},
	{"climb", "The number of connections climbs, until the server refuses more", climb},
	{"failover", "The failover took long", slowFailover},
	{"unknown", "\"outcome unknown\" is in the log", unknown},
	{"timeouts", "Everything times out", timeouts},
}

func main() {
	log.SetFlags(0)
	hold := flag.Bool("hold", false, "go on until Ctrl-C, with managedpg's page on "+pageAddr)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *hold, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

const pageAddr = "127.0.0.1:8432"

func run(ctx context.Context, hold bool, names []string) error {
	if hold {
		listener, err := net.Listen("tcp", pageAddr)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: web.Handler()}
		defer server.Close()
		go server.Serve(listener)
		fmt.Printf("The page is on http://%s/.\n", pageAddr)
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for _, s := range symptoms {
		if len(names) > 0 && !wanted[s.name] {
			continue
		}
		delete(wanted, s.name)
		fmt.Printf("\n== %s: %s\n\n", s.name, s.seen)
		if err := play(ctx, os.Stdout, hold, s.make); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for name := range wanted {
		return fmt.Errorf("no symptom %q: there are exhausted, deploy, climb, failover, unknown and timeouts", name)
	}
	return nil
}
