package leak_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/leak"
)

// leaky is a pool, and what it said of its leaks.
type leaky struct {
	*testing.T
	db   *sql.DB
	pool *managedpg.Pool

	mu      sync.Mutex
	reports []leak.Report
	log     bytes.Buffer
}

func newLeaky(t *testing.T, dsn string, change ...func(*managedpg.Config)) *leaky {
	t.Helper()
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	l := &leaky{T: t}
	cfg.Logger = slog.New(slog.NewJSONHandler(l, nil))
	cfg.OnLeak = func(r leak.Report) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.reports = append(l.reports, r)
	}
	for _, f := range change {
		f(cfg)
	}
	if l.db, err = managedpg.OpenDB(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.db.Close() })
	l.pool, _ = managedpg.PoolOf(l.db)
	return l
}

func (l *leaky) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (l *leaky) reported() []leak.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]leak.Report(nil), l.reports...)
}

// reportedAt is the first report of that place.
func (l *leaky) reportedAt(at string) leak.Report {
	l.Helper()
	for _, r := range l.reported() {
		if strings.HasPrefix(r.Caller, at) {
			return r
		}
	}
	l.Fatalf("nothing is reported at %s, but %v", at, l.reported())
	return leak.Report{}
}

// logged are the records of the log with that message.
func (l *leaky) logged(message string) (records []map[string]any) {
	l.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.log.Bytes()) {
		var r map[string]any
		if err := json.Unmarshal(line, &r); err != nil {
			l.Fatal(err)
		}
		if r["msg"] == "managedpg: "+message {
			records = append(records, r)
		}
	}
	return records
}

// eventuallyReported waits for n reports and for what goes with them.
func (l *leaky) eventuallyReported(n int) []leak.Report {
	l.Helper()
	rig.Eventually(l.T, fmt.Sprintf("%d leaks reported", n), func() bool { return len(l.reported()) >= n })
	if got := l.reported(); len(got) != n {
		l.Fatalf("%d reports, want %d: %v", len(got), n, got)
	}
	return l.reported()
}

// nextLine is the place of the line below the one that calls it, as a report names it.
func nextLine() string {
	_, file, line, _ := runtime.Caller(1)
	return file + ":" + strconv.Itoa(line+1) + " "
}

const manyRows = "SELECT n, repeat('x', 8000) FROM generate_series(1, 400) n"

// The ways to leak. Each says where it took the connection, and how to give it back.
var waysToLeak = []struct {
	name string
	do   func(ctx context.Context, db *sql.DB) (at string, free func() error, err error)
}{
	{"Rows not closed", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		at := nextLine()
		rows, err := db.QueryContext(ctx, "SELECT 1")
		return at, rows.Close, err
	}},
	{"Rows left after an early return", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		at := nextLine()
		rows, err := db.QueryContext(ctx, manyRows)
		for err == nil && rows.Next() {
			var n int
			var text string
			if err = rows.Scan(&n, &text); n == 2 {
				break
			}
		}
		return at, rows.Close, err
	}},
	{"Rows of a prepared statement", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		st, err := db.PrepareContext(ctx, "SELECT $1::int")
		if err != nil {
			return "", nil, err
		}
		at := nextLine()
		rows, err := st.QueryContext(ctx, 1)
		return at, func() error { return errors.Join(rows.Close(), st.Close()) }, err
	}},
	{"Tx never ended", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		at := nextLine()
		tx, err := db.BeginTx(ctx, nil)
		return at, tx.Rollback, err
	}},
	{"sql.Conn never closed", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		at := nextLine()
		c, err := db.Conn(ctx)
		return at, c.Close, err
	}},
	{"sql.Stmt on a Conn", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		at := nextLine()
		c, err := db.Conn(ctx)
		if err != nil {
			return "", nil, err
		}
		st, err := c.PrepareContext(ctx, "SELECT 1")
		return at, func() error { return errors.Join(st.Close(), c.Close()) }, err
	}},
	{"a goroutine blocked for ever", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		var at string
		release, result := make(chan struct{}), make(chan error)
		go func() {
			at = nextLine()
			tx, err := db.BeginTx(ctx, nil)
			result <- err
			<-release
			result <- tx.Rollback()
		}()
		err := <-result
		return at, func() error {
			close(release)
			return <-result
		}, err
	}},
}

func inEachLeakyCombination(t *testing.T, keys []string, f func(l *leaky)) {
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			f(newLeaky(t, c.DSN(pgtest.Database(t), keys...)))
		})
	}
}

func TestLeakNamesTheLine(t *testing.T) {
	inEachLeakyCombination(t, []string{"leak_threshold=0.5"}, func(l *leaky) {
		ctx := pprof.WithLabels(context.Background(), pprof.Labels("route", "/users"))
		want := make(map[string]string) // a way by its place
		var free []func() error
		for _, way := range waysToLeak {
			at, f, err := way.do(ctx, l.db)
			if err != nil {
				l.Fatalf("%s: %v", way.name, err)
			}
			want[at] = way.name
			free = append(free, f)
		}
		for _, r := range l.eventuallyReported(len(want)) {
			at := r.Caller[:strings.Index(r.Caller, " ")+1]
			if want[at] == "" {
				l.Errorf("reported %s", r.Caller)
			}
			delete(want, at)
			if r.Stack[0] != r.Caller || r.BackendPID == 0 || r.Labels["route"] != "/users" || r.Reclaimed {
				l.Errorf("report %+v", r)
			}
		}
		for at, way := range want {
			l.Errorf("%s: not reported at %s", way, at)
		}
		n := int64(len(waysToLeak))
		if s := l.pool.Stats(); s.LeakedConnections != n || s.TotalLeaks != n || s.ReclaimedConnections != 0 || len(l.pool.Leaks()) != int(n) {
			l.Errorf("%d leaks now, %d in the stats, %d in total, %d reclaimed", len(l.pool.Leaks()), s.LeakedConnections, s.TotalLeaks, s.ReclaimedConnections)
		}
		for _, f := range free {
			if err := f(); err != nil {
				l.Error(err)
			}
		}
		if s := l.pool.Stats(); s.LeakedConnections != 0 || s.TotalLeaks != n || l.pool.Leaks() != nil {
			l.Errorf("after they came back: leaks %v, %d in the stats, %d in total", l.pool.Leaks(), s.LeakedConnections, s.TotalLeaks)
		}
		rig.Eventually(l.T, "each said to have come back", func() bool { return len(l.logged("connection came back")) == int(n) })
		for _, r := range l.logged("connection is held too long") {
			if r["level"] != "WARN" || r["stack"].([]any)[0] != r["caller"] || r["backend_pid"] == 0. || r["labels"] == nil {
				l.Errorf("logged %v", r)
			}
		}
	})
}

// atFirstCall is a leaked sql.Conn whose checkout is its first call: what sql.DB's opener opened is nobody's before.
func atFirstCall(ctx context.Context, db *sql.DB) (string, func() error, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return "", nil, err
	}
	at := nextLine()
	_, err = c.ExecContext(ctx, "SELECT 1")
	return at, c.Close, err
}

// Under SetMaxOpenConns sql.DB's own goroutine opens connections.
func TestLeakOfAConnectionThatTheOpenerOpened(t *testing.T) {
	inEachLeakyCombination(t, []string{"leak_threshold=0.1"}, func(l *leaky) {
		ctx := context.Background()
		l.db.SetMaxOpenConns(1)
		first, err := l.db.Conn(ctx)
		if err != nil {
			l.Fatal(err)
		}
		for _, way := range waysToLeak {
			switch way.name {
			case "sql.Conn never closed":
				way.do = atFirstCall
			case "sql.Stmt on a Conn", "Rows of a prepared statement":
				continue // the one is as above, the other makes two checkouts
			}
			known := len(l.reported())
			waits := l.db.Stats().WaitCount
			var free func() error
			var at string
			done := make(chan error)
			go func() {
				var err error
				at, free, err = way.do(ctx, l.db)
				done <- err
			}()
			rig.Eventually(l.T, "it waits", func() bool { return l.db.Stats().WaitCount > waits })
			_ = first.Raw(func(any) error { return driver.ErrBadConn }) // so that it is closed, and another opened
			_ = first.Close()
			if err := <-done; err != nil {
				l.Fatalf("%s: %v", way.name, err)
			}
			rig.Eventually(l.T, "the leak reported", func() bool {
				for _, r := range l.reported()[known:] {
					if strings.HasPrefix(r.Caller, at) {
						return true
					}
				}
				return false
			})
			if err := free(); err != nil {
				l.Error(err)
			}
			if first, err = l.db.Conn(ctx); err != nil {
				l.Fatal(err)
			}
		}
		_ = first.Close()
	})
}

func TestLeaksOfOneLineAreWarnedOfOnce(t *testing.T) {
	l := newLeaky(t, rig.WithKeys(pgtest.Database(t), "pool_size=3", "leak_threshold=0.05"))
	var held []*sql.Conn
	for range 3 {
		c, err := l.db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	l.eventuallyReported(3)
	for _, c := range held {
		_ = c.Close()
	}
	_ = l.db.Close()
	const more = "more connections were held too long by a caller reported before"
	rig.Eventually(t, "the others summed up", func() bool { return len(l.logged(more)) == 1 })
	if r := l.logged(more)[0]; r["level"] != "WARN" || r["leaks"] != 2. || r["came_back"] != 2. {
		t.Errorf("logged %v", r)
	}
	if n := len(l.logged("connection is held too long")); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if back := l.logged("connection came back"); len(back) != 1 || back[0]["level"] != "INFO" {
		t.Errorf("%v", back)
	}
}

func TestSkippedPackagesAreNoCaller(t *testing.T) {
	l := newLeaky(t, rig.WithKeys(pgtest.Database(t), "leak_threshold=0.05"), func(cfg *managedpg.Config) {
		cfg.LeakSkipPackages = []string{"github.com/managedpg/managedpg/internal/e2e/leak_test"}
	})
	c, err := l.db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r := l.eventuallyReported(1)[0]; !strings.HasSuffix(r.Caller, " testing.tRunner") {
		t.Errorf("caller %s", r.Caller)
	}
}

func TestWhatIsNoLeakIsNotReported(t *testing.T) {
	const threshold = time.Second
	inEachLeakyCombination(t, []string{"leak_threshold=1"}, func(l *leaky) {
		ctx := context.Background()
		busy := make(chan struct{})
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() { // short checkouts
				for {
					select {
					case <-busy:
						return
					default:
						if _, err := l.db.ExecContext(ctx, "SELECT 1"); err != nil {
							l.Error(err)
							return
						}
					}
				}
			})
		}
		long, err := l.db.Conn(managedpg.LongCheckout(ctx))
		if err != nil {
			l.Fatal(err)
		}
		late := 0 // when the machine is
		for range 2 {
			start := time.Now()
			tx, err := l.db.BeginTx(ctx, nil)
			if err != nil {
				l.Fatal(err)
			}
			for time.Since(start) < threshold-200*time.Millisecond {
				rig.Exec(l.T, tx, "SELECT 1")
				time.Sleep(10 * time.Millisecond)
			}
			if err := tx.Commit(); err != nil {
				l.Error(err)
			}
			if time.Since(start) >= threshold {
				late++
			}
		}
		close(busy)
		group.Wait()
		if n := len(l.reported()); n > late {
			l.Errorf("%v reported", l.reported())
		}
		if s := l.pool.Stats(); s.TotalLeaks > int64(late) || s.LeakedConnections > 0 {
			l.Errorf("%d leaks in the stats, %d in total", s.LeakedConnections, s.TotalLeaks)
		}
		if err := errors.Join(long.PingContext(ctx), long.Close()); err != nil {
			l.Error(err)
		}
	})
}

func TestExhaustedPoolNamesItsHolders(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "base_driver="+base, "pool_size=1", "max_overflow=0", "pool_timeout=0.1", "pool_name=full"))
			at := nextLine()
			c, err := db.Conn(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = db.PingContext(context.Background())
			var timeout *conn.PoolTimeoutError
			if !errors.Is(err, managedpg.ErrPoolTimeout) || !errors.As(err, &timeout) || len(timeout.Longest) != 1 {
				t.Fatalf("%v", err)
			}
			if text := err.Error(); !strings.Contains(text, "longest held for ") || !strings.Contains(text, ", by "+at) {
				t.Errorf("the timeout doesn't name the holder: %s", text)
			}
			s := managedpg.Stats()[0]
			if len(s.LongestHolders) != 1 || !strings.HasPrefix(s.LongestHolders[0].Caller, at) || s.LongestHolders[0].Held < 100*time.Millisecond {
				t.Errorf("stats name %v", s.LongestHolders)
			}
			text, err := json.Marshal(s)
			if err != nil || !regexp.MustCompile(`"longest_holders":\[\{"caller":"`+regexp.QuoteMeta(at)+`[^"]*","held":0\.\d+\}\]`).Match(text) {
				t.Errorf("stats in JSON: %s, %v", text, err)
			}
			if !regexp.MustCompile(`(?m)^longest_holders +\d+[\d.]*ms by ` + regexp.QuoteMeta(at)).MatchString(s.String()) {
				t.Errorf("stats:\n%v", s)
			}
		})
	}
}

//go:noinline
func leakInReport(ctx context.Context, db *sql.DB) (*sql.Tx, error) { return db.BeginTx(ctx, nil) }

//go:noinline
func leakInExport(ctx context.Context, db *sql.DB) (*sql.Tx, error) { return db.BeginTx(ctx, nil) }

func TestProfileShowsTheLeaks(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_size=5"))
	ctx := context.Background()
	for _, leak := range []func(context.Context, *sql.DB) (*sql.Tx, error){leakInReport, leakInExport} {
		tx, err := leak(ctx, db)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		time.Sleep(50 * time.Millisecond)
	}
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	profile := pprof.Lookup("managedpg.checkouts")
	if profile == nil || profile.Count() != 3 {
		t.Fatalf("the profile is %v", profile)
	}
	path := filepath.Join(t.TempDir(), "checkouts.pb.gz")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(profile.WriteTo(file, 0), file.Close()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`flat%.*\n.*leak_test\.leakInReport\n.*leak_test\.leakInExport\n`).Match(out) {
		t.Errorf("the leaks don't come first:\n%s", out)
	}
}
