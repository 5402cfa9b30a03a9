// Dashboard: a shop under a load that comes and goes, with a function that forgets its rows and a server that dies once a
// minute, and a page to watch it on.
//
//	go run ./examples/dashboard
//
// It starts throwaway PostgreSQL servers of its own, listens on a loopback port, and ends with Ctrl-C. The same port has
// /metrics for Prometheus (ops/ has a dashboard for Grafana and alert rules) and /debug/vars.
package main

import (
	"context"
	"database/sql"
	"expvar"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats/promstats"
	"github.com/managedpg/managedpg/stats/web"
)

func main() {
	log.SetFlags(0)
	addr := flag.String("addr", "127.0.0.1:8432", "where the page listens; port 0: any free one")
	limit := flag.Duration("for", 0, "how long to run; 0: until Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *limit > 0 {
		ctx, stop = context.WithTimeout(ctx, *limit)
		defer stop()
	}
	if err := run(ctx, *addr); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	a, err := pgtest.New()
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := a.Standby()
	if err != nil {
		return err
	}
	defer b.Close()

	managedpg.SetLogger(slog.New(slog.NewTextHandler(io.Discard, nil))) // the page tells the same
	shop, err := sql.Open("managedpg", a.DSN()+"&pool_name=shop&pool_size=8&max_overflow=4&pool_timeout=2s&leak_threshold=5s"+
		"&health_check_interval=1s&failback=false&failover_urls="+url.QueryEscape(b.DSN()))
	if err != nil {
		return err
	}
	defer shop.Close()
	reports, err := sql.Open("managedpg", b.DSN()+"&pool_name=reports&health_check_interval=2s") // database/sql governs it
	if err != nil {
		return err
	}
	defer reports.Close()
	reports.SetMaxOpenConns(4)

	mux := http.NewServeMux()
	mux.Handle("/", web.Handler())
	mux.Handle("/debug/vars", expvar.Handler())
	registry := prometheus.NewRegistry()
	registry.MustRegister(promstats.NewCollector())
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux}
	defer server.Close()
	go server.Serve(listener)
	fmt.Printf("The page is on http://%s/, the metrics are on http://%[1]s/metrics.\n", listener.Addr())
	fmt.Println("A connection leaks every 10 seconds or so; the primary dies after half a minute, and then once a minute.")
	fmt.Println("Ctrl-C ends it.")

	var work sync.WaitGroup
	defer work.Wait()
	for n := range 40 {
		work.Go(func() { customer(ctx, shop, n) })
	}
	for range 3 {
		work.Go(func() { analyst(ctx, reports) })
	}
	work.Go(func() { forgetful(ctx, shop) })
	return disasters(ctx, a, b)
}

// customer n is there while the load is high enough.
func customer(ctx context.Context, db *sql.DB, n int) {
	start := time.Now()
	for ctx.Err() == nil {
		load := 12 + 10*math.Sin(time.Since(start).Seconds()/7) + 8*math.Sin(time.Since(start).Seconds()/2.3)
		if float64(n) < load {
			buy(ctx, db)
		}
		pause(ctx, time.Duration(rand.ExpFloat64()*float64(40*time.Millisecond)))
	}
}

func buy(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SELECT pg_sleep($1)", rand.ExpFloat64()*0.02); err != nil {
		return err
	}
	return tx.Commit()
}

func analyst(ctx context.Context, db *sql.DB) {
	for ctx.Err() == nil {
		db.ExecContext(ctx, "SELECT pg_sleep($1)", rand.ExpFloat64())
		pause(ctx, time.Second)
	}
}

// forgetful loses its rows for a while.
func forgetful(ctx context.Context, db *sql.DB) {
	for ctx.Err() == nil {
		pause(ctx, 8*time.Second)
		if rows, err := exportOrders(ctx, db); err == nil {
			time.AfterFunc(20*time.Second, func() { rows.Close() })
		}
	}
}

// exportOrders forgets to close its rows.
func exportOrders(ctx context.Context, db *sql.DB) (*sql.Rows, error) {
	return db.QueryContext(ctx, "SELECT generate_series(1, 1000)")
}

// disasters kills the primary from time to time, promotes the standby, and makes the old one the new one's standby.
func disasters(ctx context.Context, primary, standby *pgtest.Cluster) error {
	for wait := 30 * time.Second; ; wait = time.Minute {
		if pause(ctx, wait); ctx.Err() != nil {
			return nil
		}
		if err := primary.Kill(); err != nil {
			return err
		}
		if pause(ctx, 2*time.Second); ctx.Err() != nil {
			return nil
		}
		if err := standby.Promote(); err != nil {
			return err
		}
		if pause(ctx, 10*time.Second); ctx.Err() != nil {
			return nil
		}
		if err := primary.RejoinAsStandby(standby); err != nil {
			return err
		}
		primary, standby = standby, primary
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
