package web

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/leak"
)

// site is a line of code that takes a connection.
type site func(context.Context, *sql.DB) (*sql.Conn, error)

// sites are nineteen lines that hold briefly.
var sites = []site{
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
	func(ctx context.Context, db *sql.DB) (*sql.Conn, error) { return db.Conn(ctx) },
}

// greedy is a twentieth, which holds ten times as long.
func greedy(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	return db.Conn(ctx)
}

const brief = 10 * time.Millisecond

// Of twenty lines that use a pool one holds ten times as long, so that the queue stands. Whatever one asks names it first: Usage, the
// profile, the page, and the error of who got no connection.
func TestCulpritIsNamed(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_size=4&max_overflow=0&pool_timeout=100ms", "orders")
	pool, _ := managedpg.PoolOf(db)
	h := Handler()
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	var mu sync.Mutex
	var last error
	hold := func(of site, held time.Duration) {
		for ctx.Err() == nil {
			c, err := of(ctx, db)
			if err != nil {
				if errors.Is(err, managedpg.ErrPoolTimeout) {
					mu.Lock()
					last = err
					mu.Unlock()
				}
				continue
			}
			time.Sleep(held)
			c.Close()
		}
	}
	for range 3 {
		for _, s := range sites {
			work.Go(func() { hold(s, brief) })
		}
		work.Go(func() { hold(greedy, 10*brief) })
	}
	defer work.Wait()
	defer stop()

	eventually(t, "the queue stands", func() bool { return pool.Stats().QueueStanding > 0 })
	start := time.Now()
	eventually(t, "Usage names the line first", func() bool {
		usage := pool.Usage()
		return len(usage) == 20 && isGreedy(usage[0].Caller)
	})
	eventually(t, "the profile names the line first", func() bool { return isGreedy(topOfProfile(t)) })
	sentence := regexp.MustCompile(`<p class="story bad"><b>Exhausted: [0-9]+ checkouts? waits?, the longest for [^;]*; .*culprit_test\.go:[0-9]+ web\.greedy has `)
	first := regexp.MustCompile(`(?s)<h3>Which lines used the pool.*?<tbody>\s*<tr><th scope="row" class="caller" title="([^"]*)"`)
	eventually(t, "the page says so at its top, names the line first, and says who waits", func() bool {
		html := fetch(t, h, "/", "")
		line := first.FindStringSubmatch(html)
		return sentence.MatchString(html) && line != nil && isGreedy(line[1]) && regexp.MustCompile(`[0-9]+ waits? at culprit_test\.go:`).MatchString(html)
	})
	var timeout *conn.PoolTimeoutError
	eventually(t, "the error of who got none names the line", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return errors.As(last, &timeout) && len(timeout.Usage) > 0 && isGreedy(timeout.Usage[0].Caller) && isGreedy(last.Error())
	})
	t.Logf("all within %v of the queue's standing", time.Since(start).Round(time.Millisecond))
}

func isGreedy(caller string) bool { return strings.Contains(caller, "web.greedy") }

// topOfProfile is the first line of go tool pprof -top.
func topOfProfile(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "usage.pb.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := pprof.Lookup(leak.UsageProfileName).WriteTo(file, 0); err != nil {
		t.Fatal(err)
	}
	top, err := exec.Command("go", "tool", "pprof", "-top", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, top)
	}
	_, lines, _ := strings.Cut(string(top), "cum%\n")
	line, _, _ := strings.Cut(lines, "\n")
	return line
}

// Four who hold for long starve forty while the pool's last minutes were somebody else's: the page names them by what they hold now, says who
// waits, and whose the longest hold was when it is over.
func TestStarvedPoolOnThePage(t *testing.T) {
	db := open(t, pgtest.Database(t)+"&pool_size=4&max_overflow=0", "orders")
	pool, _ := managedpg.PoolOf(db)
	h := Handler()
	const before = 400 * time.Millisecond
	c, err := sites[0](t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(before) // some other line's past
	c.Close()

	var held []*sql.Conn
	for range 4 {
		c, err := greedy(t.Context(), db)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	var waiting sync.WaitGroup
	for range 40 {
		waiting.Go(func() {
			if c, err := sites[7](t.Context(), db); err == nil {
				c.Close()
			}
		})
	}
	eventually(t, "forty have waited for more than a second", func() bool {
		return pool.Stats().Waiting == 40 && pool.Stats().LongestHolders[0].Held > longWait+before
	})
	html := fetch(t, h, "/", "")
	for _, want := range []string{`<p class="story bad"><b>Exhausted: 40 checkouts wait, the longest for 1`, "web.greedy has 4 of 4 connections, the longest for 1",
		"; 40 wait at culprit_test.go:", `<td class="n" data-name="checkouts">40</td>`} {
		if !strings.Contains(html, want) {
			t.Errorf("%q isn't on the page", want)
		}
	}
	for _, c := range held {
		c.Close()
	}
	waiting.Wait()
	html = fetch(t, h, "/", "")
	if !regexp.MustCompile(`<p class="quiet by">longest [0-9.]+s, by culprit_test\.go:[0-9]+ web\.greedy</p>`).MatchString(html) {
		t.Error("the page doesn't say whose the longest hold was")
	}
	waited := time.Duration(0)
	for _, u := range pool.Usage() {
		waited += u.Waited
	}
	if waited < 40*longWait {
		t.Errorf("the lines waited for %v all together", waited)
	}
}

func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for start := time.Now(); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}
