package promstats

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/managedpg/managedpg"
)

// BenchmarkScrape is one scrape over HTTP of 100 pools with 100 connections each, on a base driver that does nothing.
//
//	go test -run - -bench Scrape ./stats/promstats
func BenchmarkScrape(b *testing.B) {
	manyPools(b)
	scrape := scraper(b)
	b.ReportAllocs()
	for b.Loop() {
		scrape()
	}
}

// BenchmarkBesideScrapes is a call of another pool while Prometheus scrapes all of them once a second, which is often.
// Stretches with scrapes and without alternate; "slowdown-%" is the median of their paired ratios.
func BenchmarkBesideScrapes(b *testing.B) {
	manyPools(b)
	scrape := scraper(b)
	db := pool(b, "beside")
	ctx := context.Background()
	stretch := func(scraped bool) (calls float64) {
		var scraping sync.WaitGroup
		if scraped {
			scraping.Go(scrape)
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end); calls += 100 {
			for range 100 {
				if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
					b.Fatal(err)
				}
			}
		}
		scraping.Wait()
		return calls
	}
	var ratios []float64
	for b.Loop() {
		for first := range 2 {
			scraped := first == 1
			one, other := stretch(scraped), stretch(!scraped)
			if scraped {
				one, other = other, one
			}
			ratios = append(ratios, one/other)
		}
	}
	slices.Sort(ratios)
	b.ReportMetric(100*(ratios[len(ratios)/2]-1), "slowdown-%")
}

// manyPools opens 100 pools with 100 connections each.
func manyPools(b *testing.B) {
	for i := range 100 {
		db := pool(b, fmt.Sprintf("pool%d", i))
		var held []*sql.Conn
		for range 100 {
			c, err := db.Conn(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			held = append(held, c)
		}
		for _, c := range held {
			c.Close()
		}
	}
}

func pool(b *testing.B, name string) *sql.DB {
	cfg, err := managedpg.ParseDSN("pool_size=100")
	if err != nil {
		b.Fatal(err)
	}
	cfg.PoolName, cfg.Endpoints = name, []driver.Connector{idle{}}
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db
}

// scraper does what Prometheus does.
func scraper(b *testing.B) func() {
	registry := prometheus.NewRegistry()
	registry.MustRegister(NewCollector())
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	b.Cleanup(server.Close)
	return func() {
		answer, err := http.Get(server.URL)
		if err != nil {
			b.Fatal(err)
		}
		defer answer.Body.Close()
		if n, err := io.Copy(io.Discard, answer.Body); err != nil || n < 100_000 {
			b.Fatal(n, err)
		}
	}
}

// idle is a base driver that does nothing.
type idle struct{}

func (idle) Connect(context.Context) (driver.Conn, error) { return idleConn{}, nil }
func (idle) Driver() driver.Driver                        { return nil }

type idleConn struct{}

func (idleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, nil
}
func (idleConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (idleConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (idleConn) Close() error                        { return nil }
