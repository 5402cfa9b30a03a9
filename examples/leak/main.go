// Leak: a shop whose code forgets connections, until the pool of three is empty; then what managedpg says of it, and how
// the pool heals itself.
//
// It starts a throwaway PostgreSQL of its own.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

var profile = flag.String("profile", "", "write the pprof profile managedpg.checkouts to this `file` while the pool is exhausted")

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	server, err := pgtest.New()
	if err != nil {
		return err
	}
	defer server.Close()

	managedpg.SetLogger(slog.New(page{}))
	keys := "&pool_name=shop&pool_size=3&max_overflow=0&pool_timeout=500ms&leak_threshold=300ms&leak_reclaim_after=1500ms"
	say("sql.Open(%q, %q)", "managedpg", server.DSN()+keys)
	db, err := sql.Open("managedpg", server.DSN()+keys)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx := context.Background()
	if _, err := db.ExecContext(ctx, "CREATE TABLE orders AS SELECT id, id * 10 AS total FROM generate_series(1, 1000) id"); err != nil {
		return err
	}

	say("\nTwo calls of firstLargeOrder, which forgets its rows, and one of export, which forgets its transaction ...\n")
	for range 2 {
		if _, err := firstLargeOrder(ctx, db); err != nil {
			return err
		}
	}
	ask, answer := make(chan bool), make(chan error)
	go export(ctx, db, ask, answer)
	if err := <-answer; err != nil {
		return err
	}

	time.Sleep(400 * time.Millisecond) // for the log
	say("\n... and the pool is exhausted. The next one who asks is told by whom:\n")
	_, err = db.ExecContext(ctx, "SELECT 1")
	if !errors.Is(err, managedpg.ErrPoolTimeout) {
		return fmt.Errorf("an exhausted pool says %v", err)
	}
	say("  %v", err)
	say("\nSo does managedpg.Stats():\n")
	for _, s := range managedpg.Stats() {
		for _, line := range lines(s.String(), "checked_out", "leaked_connections", "longest_holders") {
			say("  %s", line)
		}
	}
	if *profile != "" {
		if err := writeProfile(*profile); err != nil {
			return err
		}
		say("\nThe profile is in %s: go tool pprof -top %[1]s", *profile)
	}

	say("\nAfter leak_reclaim_after, 1.5 s, they are taken back:\n")
	pool, _ := managedpg.PoolOf(db)
	for deadline := time.Now().Add(5 * time.Second); pool.Stats().ReclaimedConnections < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("nothing was reclaimed")
		}
	}
	time.Sleep(50 * time.Millisecond) // for the log
	var orders int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&orders); err != nil {
		return err
	}
	say("\nThe pool goes on: %d orders, none of export's; its transaction was rolled back. What export gets when it wakes up:\n", orders)
	close(ask)
	err = <-answer
	if !errors.Is(err, managedpg.ErrReclaimed) {
		return fmt.Errorf("the late holder of a reclaimed connection gets %v", err)
	}
	say("  %v", err)
	return nil
}

// firstLargeOrder is wrong: it returns early and leaves its rows, and with them its connection, open.
func firstLargeOrder(ctx context.Context, db *sql.DB) (id int, err error) {
	rows, err := db.QueryContext(ctx, "SELECT id, total FROM orders ORDER BY id")
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		var total int
		if err := rows.Scan(&id, &total); err != nil || total > 100 {
			return id, err
		}
	}
	return 0, rows.Close()
}

// export is wrong: it waits in the middle of a transaction, for something that may never come.
func export(ctx context.Context, db *sql.DB, ask <-chan bool, answer chan<- error) {
	tx, err := db.BeginTx(ctx, nil)
	if err == nil {
		_, err = tx.ExecContext(ctx, "INSERT INTO orders VALUES (1001, 0)")
	}
	answer <- err
	if err != nil {
		return
	}
	<-ask
	answer <- tx.Commit()
}

func writeProfile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup("managedpg.checkouts").WriteTo(f, 0), f.Close())
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// lines are those that begin with one of the names, and those that go on with them.
func lines(text string, names ...string) (found []string) {
	wanted := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			name, _, _ := strings.Cut(line, " ")
			wanted = false
			for _, n := range names {
				wanted = wanted || n == name
			}
		}
		if wanted {
			found = append(found, strings.TrimRight(line, "\n"))
		}
	}
	return found
}

// page is a log for a reader: a record's attributes stand below it.
type page struct{}

func (page) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (p page) WithAttrs([]slog.Attr) slog.Handler         { return p }
func (p page) WithGroup(string) slog.Handler              { return p }

func (page) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s %s\n", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		switch v := a.Value.Any().(type) {
		case []string:
			fmt.Fprintf(&b, "      %-14s %s\n", a.Key, strings.Join(v, "\n"+strings.Repeat(" ", 21)))
		case time.Duration:
			fmt.Fprintf(&b, "      %-14s %v\n", a.Key, v.Round(time.Millisecond))
		case time.Time:
			fmt.Fprintf(&b, "      %-14s %s\n", a.Key, v.Format("15:04:05.000"))
		default:
			fmt.Fprintf(&b, "      %-14s %v\n", a.Key, v)
		}
		return true
	})
	_, err := os.Stdout.WriteString(b.String())
	return err
}
