// Failover: eight clients write to a primary with a standby; the primary is killed, the standby promoted, the old primary
// comes back without knowing, and at last as the new one's standby. It prints what the clients saw, and counts every row
// afterwards.
//
// It starts throwaway PostgreSQL servers of its own.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

const clients = 8

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
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
	if err := a.Exec("CREATE TABLE payment (id text PRIMARY KEY)",
		// An answered commit is on the standby too, so that none may be missing afterwards.
		"ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"); err != nil {
		return err
	}

	fmt.Printf("A on %s is the primary, B on %s its standby.\n", a.Addr(), b.Addr())
	dsn := a.DSN() + "&pool_name=payments&pool_size=8&failover_urls=" + url.QueryEscape(b.DSN())
	fmt.Printf("sql.Open(%q, %q)\n", "managedpg", dsn)
	managedpg.SetLogger(slog.New(slog.NewTextHandler(io.Discard, nil))) // the timeline below tells the same
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		return err
	}
	t := timeline{
		start:   time.Now(),
		names:   map[string]string{fmt.Sprint(a.Port()): "A", fmt.Sprint(b.Port()): "B"},
		replace: strings.NewReplacer(a.Addr()+"/postgres", "A", b.Addr()+"/postgres", "B", a.Addr(), "A", b.Addr(), "B"),
		unknown: make(map[string]bool),
	}
	cfg.OnFailover = func(e failover.Event) {
		t.say("managedpg", "%s from %s to %s: %s", e.Kind, e.From, e.To, e.Reason)
	}
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		return err
	}
	defer db.Close()

	fmt.Printf("\n%d clients write a payment each 5 ms.\n\n", clients)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var group sync.WaitGroup
	for n := range clients {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				t.pay(db, fmt.Sprintf("%d-%d", n, i))
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	err = t.story(db, a, b)
	stop()
	group.Wait()
	if err != nil {
		return err
	}
	return t.audit(db)
}

// story is what happens to the servers.
func (t *timeline) story(db *sql.DB, a, b *pgtest.Cluster) error {
	pool, _ := managedpg.PoolOf(db)
	time.Sleep(time.Second)
	t.say("operator", "kill -9 of A and all its sessions")
	if err := a.Kill(); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond)
	t.say("operator", "promotes B")
	if err := b.Promote(); err != nil {
		return err
	}
	t.say("operator", "B is promoted")
	time.Sleep(500 * time.Millisecond)

	t.say("operator", "starts A again, which believes to be the primary still")
	if err := a.Restart(); err != nil {
		return err
	}
	if err := t.health(pool, func(e failover.EndpointHealth) bool { return e.Fenced }); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)

	t.say("operator", "makes A a standby of B")
	if err := a.RejoinAsStandby(b); err != nil {
		return err
	}
	if err := t.health(pool, func(e failover.EndpointHealth) bool { return e.State == failover.Up && e.Role == failover.ReadOnly }); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	return nil
}

// health waits until A, the first endpoint, is seen as wanted, and says how the pool sees both.
func (t *timeline) health(pool *managedpg.Pool, wanted func(failover.EndpointHealth) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		h := pool.CheckNow(ctx)
		if wanted(h.Endpoints[0]) {
			var seen []string
			for _, e := range h.Endpoints {
				how := fmt.Sprintf("%s is %s, %s, timeline %d", e.Endpoint, e.State, e.Role, e.Timeline)
				if e.Fenced {
					how += ", fenced"
				}
				seen = append(seen, how)
			}
			t.say("managedpg", "%s", strings.Join(seen, "; "))
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("server A is seen as %+v", h.Endpoints[0])
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// timeline is what the clients saw, printed as it happens.
type timeline struct {
	start   time.Time
	names   map[string]string // A or B by port
	replace *strings.Replacer

	mu      sync.Mutex
	server  string    // where the last payment went
	last    time.Time // when
	here    int       // payments since the server changed
	done    []string  // payments that were answered
	unknown map[string]bool
	failed  map[string]int // errors since the last payment, by what they are
}

func (t *timeline) say(who, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sayLocked(who, format, args...)
}

func (t *timeline) sayLocked(who, format string, args ...any) {
	fmt.Printf("%7.3f s  %-9s  %s\n", time.Since(t.start).Seconds(), who, t.replace.Replace(fmt.Sprintf(format, args...)))
}

// pay writes one payment, once. Its context is long: a checkout waits for the promotion by itself.
func (t *timeline) pay(db *sql.DB, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var port string
	err := db.QueryRowContext(ctx, "INSERT INTO payment VALUES ($1) RETURNING inet_server_port()", id).Scan(&port)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if err != nil {
		if errors.Is(err, managedpg.ErrOutcomeUnknown) {
			t.unknown[id] = true
		}
		if t.failed == nil {
			t.failed = make(map[string]int)
			t.sayLocked("a client", "%v", err)
		}
		t.failed[kindOf(err)]++
		return
	}
	t.done = append(t.done, id)
	if server := t.names[port]; server != t.server {
		if t.server == "" {
			t.sayLocked("a client", "wrote to %s", server)
		} else {
			t.sayLocked("a client", "wrote to %s, %v after the last of %d payments on %s; in between %s", server,
				now.Sub(t.last).Round(time.Millisecond), t.here, t.server, counts(t.failed))
		}
		t.server, t.here, t.failed = server, 0, nil
	}
	t.here++
	t.last = now
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, managedpg.ErrOutcomeUnknown):
		return "with an unknown outcome"
	case errors.Is(err, managedpg.ErrNoEndpoint):
		return "without a server"
	default:
		return "with " + err.Error()
	}
}

func counts(failed map[string]int) string {
	if len(failed) == 0 {
		return "none failed"
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(failed)) {
		parts = append(parts, fmt.Sprintf("%d ended %s", failed[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// audit compares what is in the table with what the clients were told.
func (t *timeline) audit(db *sql.DB) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	there := make(map[string]bool)
	rows, err := db.QueryContext(ctx, "SELECT id FROM payment")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		there[id] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	missing, ran := 0, 0
	for _, id := range t.done {
		if !there[id] {
			missing++
		}
		delete(there, id)
	}
	for id := range t.unknown {
		if there[id] {
			ran++
		}
		delete(there, id)
	}
	fmt.Printf("\n%d payments were answered, %d of them are missing. %d ended with an unknown outcome, %d of them ran. %d more are there.\n",
		len(t.done), missing, len(t.unknown), ran, len(there))
	if missing > 0 || len(there) > 0 {
		return errors.New("that is not what the clients were told")
	}
	return nil
}
