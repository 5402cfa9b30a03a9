// Harm runs what goes wrong in production against the bare drivers and against managedpg over them, with the same number of
// connections, and prints how many calls succeeded and failed. Managedpg must never be the worse one.
//
//	go run ./harm                 every fault
//	go run ./harm -only overload  those that match
//
// It exits with 1 where managedpg has more errors than the bare driver of the same base, or fewer successes. The noise that is
// allowed: two errors, or a twentieth of all calls if that is more; and a tenth of the successes.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	_ "github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func main() {
	only := flag.String("only", "", "only the faults that match this regular expression")
	flag.Parse()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	pick, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "harm:", err)
		os.Exit(1)
	}
	ok, err := run(os.Stdout, pick)
	if err != nil {
		fmt.Fprintln(os.Stderr, "harm:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// connections is how many each subject may open.
const connections = 4

// subject is a way to open a database.
type subject struct {
	name, base string
	keys       string // of managedpg's; "" is the bare driver
}

var subjects = []subject{
	{"pgx", "pgx", ""}, {"by database/sql", "pgx", "base_driver=pgx"}, {"by the driver", "pgx", "base_driver=pgx pool_size=4 max_overflow=0"},
	{"lib/pq", "pq", ""}, {"by database/sql", "pq", "base_driver=pq"}, {"by the driver", "pq", "base_driver=pq pool_size=4 max_overflow=0"},
}

// open opens servers, in order of preference.
func (s subject) open(attrs string, addrs ...string) (*sql.DB, error) {
	var hosts, ports []string
	for _, addr := range addrs {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	dsn := fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable target_session_attrs=%s",
		strings.Join(hosts, ","), strings.Join(ports, ","), attrs)
	driver := map[string]string{"pgx": "pgx", "pq": "postgres"}[s.base]
	if s.keys != "" {
		driver = "managedpg"
		dsn += " health_check_interval=100ms " + s.keys
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(s.keys, "pool_size") { // database/sql governs
		db.SetMaxOpenConns(connections)
	}
	db.SetMaxIdleConns(connections)
	return db, nil
}

// fault is something that goes wrong. It says how many calls succeeded and failed.
type fault struct {
	name string
	run  func(s subject) (ok, failed int64, err error)
}

func run(w io.Writer, pick *regexp.Regexp) (good bool, err error) {
	fmt.Fprintf(w, "Calls that succeeded / failed, with %d connections each\n\n", connections)
	fmt.Fprintf(w, "%-58s %14s %16s %14s %14s %16s %14s\n", "", "bare pgx", "by database/sql", "by the driver", "bare lib/pq", "by database/sql", "by the driver")
	good = true
	for _, f := range faults {
		if !pick.MatchString(f.name) {
			continue
		}
		line, worse := fmt.Sprintf("%-58s", f.name), ""
		var bareOK, bareFailed int64
		for i, s := range subjects {
			ok, failed, err := f.run(s)
			if err != nil {
				return false, fmt.Errorf("%s, %s over %s: %w", f.name, s.name, s.base, err)
			}
			line += fmt.Sprintf(" %*s", []int{14, 16, 14}[i%3], fmt.Sprintf("%d / %d", ok, failed))
			if s.keys == "" {
				bareOK, bareFailed = ok, failed
			} else if failed > bareFailed+max(2, (ok+failed)/20) || ok*10 < bareOK*9 {
				worse += fmt.Sprintf("  %s over %s is WORSE than the bare driver\n", s.name, s.base)
			}
		}
		fmt.Fprintln(w, line)
		fmt.Fprint(w, worse)
		good = good && worse == ""
	}
	return good, nil
}

// tally counts calls.
type tally struct{ ok, failed atomic.Int64 }

func (t *tally) count(err error) {
	if err == nil {
		t.ok.Add(1)
	} else {
		t.failed.Add(1)
	}
}

// closed makes n calls in each of as many goroutines, one after the other.
func closed(db *sql.DB, goroutines, n int, call func(*sql.DB) error) (ok, failed int64) {
	var t tally
	var load sync.WaitGroup
	for range goroutines {
		load.Go(func() {
			for range n {
				t.count(call(db))
			}
		})
	}
	load.Wait()
	return t.ok.Load(), t.failed.Load()
}

// offered makes calls at a rate of so many a second, whether the ones before have ended or not.
func offered(db *sql.DB, rate float64, for_ time.Duration, call func(*sql.DB) error) (ok, failed int64) {
	var t tally
	var load sync.WaitGroup
	for start, n := time.Now(), 0.0; time.Since(start) < for_; n++ {
		time.Sleep(time.Until(start.Add(time.Duration(n / rate * float64(time.Second)))))
		load.Go(func() { t.count(call(db)) })
	}
	load.Wait()
	return t.ok.Load(), t.failed.Load()
}

// statement is a call with a deadline; 0: without.
func statement(deadline time.Duration, query string) func(*sql.DB) error {
	return func(db *sql.DB) error {
		ctx := context.Background()
		if deadline > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, deadline)
			defer cancel()
		}
		_, err := db.ExecContext(ctx, query)
		return err
	}
}

// warm opens all connections and gives them back.
func warm(db *sql.DB) error {
	var held []*sql.Conn
	for range connections {
		c, err := db.Conn(context.Background())
		if err != nil {
			return err
		}
		held = append(held, c)
	}
	for _, c := range held {
		if err := c.Close(); err != nil {
			return err
		}
	}
	return nil
}

// server is a cluster for one fault and one subject.
func server(opts ...pgtest.Option) (*pgtest.Cluster, func(), error) {
	c, err := pgtest.New(opts...)
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = c.Close() }, nil
}
