package leak_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/stats"
)

// wantReclaimed wants the error of a late holder.
func (l *leaky) wantReclaimed(what string, err error, at string) {
	l.Helper()
	var reclaimed *conn.ReclaimedError
	if !errors.Is(err, managedpg.ErrReclaimed) || !errors.As(err, &reclaimed) {
		l.Errorf("%s of a late holder: %v", what, err)
		return
	}
	if r := reclaimed.Report; !strings.HasPrefix(r.Caller, at) || r.Duration < 200*time.Millisecond || !r.Reclaimed {
		l.Errorf("%s of a late holder: report %+v, want it at %s", what, r, at)
	}
	if errors.Is(err, driver.ErrBadConn) {
		l.Errorf("%s of a late holder would be tried again: %v", what, err)
	}
}

// gone waits for the end of a session.
func (l *leaky) gone(pid int) {
	l.Helper()
	rig.Eventually(l.T, "the session gone", func() bool {
		n, err := pgtest.Shared(l.T).QueryString(fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid))
		return err == nil && n == "0"
	})
}

func TestReclaim(t *testing.T) {
	keys := []string{"leak_threshold=0.2", "leak_reclaim_after=0.4"}
	inEachLeakyCombination(t, keys, func(l *leaky) {
		ctx := context.Background()
		long, err := l.db.Conn(managedpg.LongCheckout(ctx))
		if err != nil {
			l.Fatal(err)
		}
		rig.Exec(l.T, l.db, "CREATE TABLE t (n int)")

		at := nextLine()
		tx, err := l.db.BeginTx(ctx, nil)
		if err != nil {
			l.Fatal(err)
		}
		pid := rig.Value[int](l.T, tx, "SELECT pg_backend_pid()")
		rig.Exec(l.T, tx, "INSERT INTO t VALUES (1)")
		rig.Exec(l.T, tx, "SELECT pg_sleep(1)") // slow, not abandoned
		if r := l.reportedAt(at); r.BackendPID != uint32(pid) || r.Reclaimed {
			l.Errorf("report %+v", r)
		}
		l.gone(pid)

		// The late holder gets nothing that is somebody else's by now.
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2)"); true {
			l.wantReclaimed("Exec", err, at)
		}
		_, err = tx.PrepareContext(ctx, "SELECT 1")
		l.wantReclaimed("Prepare", err, at)
		l.wantReclaimed("Query", tx.QueryRowContext(ctx, "SELECT 1").Scan(new(int)), at)
		l.wantReclaimed("Commit", tx.Commit(), at)

		begun := at
		at = nextLine()
		c, err := l.db.Conn(ctx)
		if err != nil {
			l.Fatal(err)
		}
		pid = rig.Value[int](l.T, c, "SELECT pg_backend_pid()")
		st, err := c.PrepareContext(ctx, "SELECT 1")
		if err != nil {
			l.Fatal(err)
		}
		l.gone(pid)
		l.wantReclaimed("a statement's Query", st.QueryRowContext(ctx).Scan(new(int)), at)
		l.wantReclaimed("Ping", c.PingContext(ctx), at)
		_ = st.Close()
		_ = c.Close()

		if n := rig.Value[int](l.T, l.db, "SELECT count(*) FROM t"); n != 0 {
			l.Errorf("%d rows of a reclaimed transaction", n)
		}
		if err := errors.Join(long.PingContext(ctx), long.Close()); err != nil {
			l.Errorf("a long checkout: %v", err)
		}
		s := l.pool.Stats()
		if s.TotalLeaks < 2 || s.ReclaimedConnections < 2 || s.LeakedConnections != 0 || s.CheckedOut != 0 {
			l.Errorf("stats\n%v", s)
		}
		rig.Eventually(l.T, "both counted as closed", func() bool { return l.pool.Stats().ClosedBy[stats.ClosedReclaimed] >= 2 })
		if n := len(l.logged("connection is reclaimed")); n == 0 {
			l.Error("the log doesn't tell of a reclaim")
		}
		for _, r := range l.logged("connection came back") {
			if caller := r["caller"].(string); strings.HasPrefix(caller, begun) || strings.HasPrefix(caller, at) {
				l.Errorf("logged %v", r)
			}
		}
	})
}

// Rows that are being read are nobody's call in progress, but their holder is at work: whether it or the server is slow.
func TestSlowReaderIsNotReclaimed(t *testing.T) {
	keys := []string{"leak_threshold=0.1", "leak_reclaim_after=1"}
	inEachLeakyCombination(t, keys, func(l *leaky) {
		ctx := context.Background()
		at := nextLine()
		rows, err := l.db.QueryContext(ctx, manyRows)
		if err != nil {
			l.Fatal(err)
		}
		read := func() bool {
			var n int
			var text string
			return rows.Next() && rows.Scan(&n, &text) == nil
		}
		for start := time.Now(); time.Since(start) < 2500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
			if !read() {
				l.Fatalf("rows ended after %v: %v", time.Since(start), rows.Err())
			}
		}
		slow, err := l.db.QueryContext(ctx, "SELECT repeat('x', 9000) FROM generate_series(1, 2), LATERAL (SELECT pg_sleep(1.3)) s")
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond) // by lib/pq the checkout is older than leak_reclaim_after when its first call returns
		n := 0
		for slow.Next() {
			n++
		}
		if err := slow.Err(); err != nil || n != 2 {
			l.Errorf("a slow server's rows: %d, %v", n, err)
		}

		rig.Eventually(l.T, "it is reclaimed", func() bool { return l.pool.Stats().ReclaimedConnections == 1 })
		for read() {
		}
		l.wantReclaimed("Rows", rows.Err(), at)
		_ = rows.Close()
	})
}

// What sql.Conn.Raw shows is used without a call of ours.
func TestCopyThroughRawIsNotReclaimed(t *testing.T) {
	l := newLeaky(t, rig.WithKeys(pgtest.Database(t), "pool_size=2", "leak_reclaim_after=1"))
	ctx := context.Background()
	rig.Exec(t, l.db, "CREATE TABLE t (text text)")
	c, err := l.db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows := 0
	var n int64
	err = c.Raw(func(dc any) error {
		pgxConn := managedpg.Unwrap(dc).(*stdlib.Conn).Conn()
		n, err = pgxConn.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"text"}, pgx.CopyFromFunc(func() ([]any, error) {
			time.Sleep(100 * time.Millisecond)
			if rows++; rows > 25 {
				return nil, nil
			}
			return []any{strings.Repeat("x", 100_000)}, nil // more than pgx keeps back
		}))
		return err
	})
	if err != nil || n != 25 {
		t.Errorf("%d rows copied, %v", n, err)
	}
}

// After a write that took long pgx leaves a read of its own behind, which is no sign of life.
func TestReclaimWhilePgxReadsInTheBackground(t *testing.T) {
	l := newLeaky(t, rig.WithKeys(pgtest.Database(t), "pool_size=1", "max_overflow=0", "leak_reclaim_after=0.4"), func(cfg *managedpg.Config) {
		cfg.PgxConfig = func(c *pgx.ConnConfig) error {
			dial := c.DialFunc
			c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				return slowWriter{c}, err
			}
			return nil
		}
	})
	at := nextLine()
	tx, err := l.db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.gone(rig.Value[int](t, tx, "SELECT pg_backend_pid()"))
	l.wantReclaimed("Commit", tx.Commit(), at)
	rig.Exec(t, l.db, "SELECT 1")
}

type slowWriter struct{ net.Conn }

func (w slowWriter) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	time.Sleep(50 * time.Millisecond) // pgx begins to read after 15
	return n, err
}

// Rows that were left open may keep the server at work for long, silently.
func TestReclaimEndsWhatTheServerIsDoing(t *testing.T) {
	keys := []string{"leak_threshold=0.1", "leak_reclaim_after=0.2"}
	const forLong = "SELECT pg_backend_pid(), repeat('x', 9000), CASE WHEN n > 3 THEN pg_sleep(60) END FROM generate_series(1, 9) n"
	inEachLeakyCombination(t, keys, func(l *leaky) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		st, err := l.db.PrepareContext(ctx, forLong)
		if err != nil {
			l.Fatal(err)
		}
		defer st.Close()
		for what, query := range map[string]func() (*sql.Rows, error){
			"a text":               func() (*sql.Rows, error) { return l.db.QueryContext(context.Background(), forLong) },
			"a text with context":  func() (*sql.Rows, error) { return l.db.QueryContext(ctx, forLong) },
			"a prepared statement": func() (*sql.Rows, error) { return st.QueryContext(context.Background()) },
		} {
			rows, err := query()
			if err != nil {
				l.Fatalf("%s: %v", what, err)
			}
			var pid int
			var text, nothing sql.RawBytes
			if !rows.Next() || rows.Scan(&pid, &text, &nothing) != nil {
				l.Fatalf("%s: no row: %v", what, rows.Err())
			}
			l.gone(pid)
			for rows.Next() {
			}
			l.wantReclaimed(what, rows.Err(), "")
			_ = rows.Close()
		}
	})
}

// A connection of a driver that we know nothing of can't be closed under its holder; it is closed once that returns.
func TestReclaimOfAnUnknownDriversConnection(t *testing.T) {
	dsn := pgtest.Database(t)
	l := newLeaky(t, rig.WithKeys(dsn, "pool_size=1", "max_overflow=0", "leak_threshold=0.1", "leak_reclaim_after=0.2"), func(cfg *managedpg.Config) {
		cfg.Endpoints = []driver.Connector{rig.LegacyConnector{Via: &pq.Driver{}, DSN: dsn}}
	})
	ctx := context.Background()
	at := nextLine()
	c, err := l.db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	pid := rig.Value[int](t, c, "SELECT pg_backend_pid()")
	rig.Exec(t, l.db, "SELECT 1") // by another connection, once it is reclaimed
	l.wantReclaimed("Ping", c.PingContext(ctx), at)
	_ = c.Close()
	l.gone(pid)
}

// A pool of five, of which two connections leak a second, and eight clients who want to go on, for a minute.
func TestExhaustionHeals(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			l := newLeaky(t, rig.WithKeys(dsn, "base_driver="+base, "application_name=leaky", "pool_size=5", "max_overflow=0",
				"leak_reclaim_after=2", "health_check=false")) // a probe has a connection of its own
			rig.Exec(t, l.db, "CREATE TABLE t (n int)")
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var group sync.WaitGroup

			var held []func() error
			group.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					// Without the context, whose end would give the connection back.
					_, free, err := waysToLeak[i%len(waysToLeak)].do(context.Background(), l.db)
					if err != nil {
						t.Errorf("leaking: %v", err)
						return
					}
					held = append(held, free)
					time.Sleep(450 * time.Millisecond) // all five are leaked at times
				}
			})
			var calls atomic.Int64
			for range 8 {
				group.Go(func() {
					for ctx.Err() == nil {
						if _, err := l.db.ExecContext(context.Background(), "INSERT INTO t VALUES (1)"); err != nil {
							t.Errorf("a client: %v", err)
							return
						}
						calls.Add(1)
						time.Sleep(time.Millisecond)
					}
				})
			}
			group.Go(func() { // they go on
				for last := int64(0); ctx.Err() == nil; {
					time.Sleep(3 * time.Second)
					now := calls.Load()
					if now == last {
						t.Error("nobody got a connection within 3 s")
					}
					last = now
				}
			})
			most := l.watchSessions(ctx, dsn)
			group.Wait()

			s := l.pool.Stats()
			t.Logf("%d calls, %d leaks of which %d were reclaimed; at most %d sessions", calls.Load(), len(held), s.ReclaimedConnections, most)
			if most > 5 {
				t.Errorf("%d sessions", most)
			}
			if s.CheckoutTimeouts > 0 || s.ReclaimedConnections == 0 || calls.Load() != rig.Value[int64](t, l.db, "SELECT count(*) FROM t") {
				t.Errorf("%d calls; stats\n%v", calls.Load(), s)
			}
			for _, free := range held {
				_ = free()
			}
		})
	}
}

// watchSessions looks at the pool's sessions until the context ends, and returns how many there were at most. None may be
// left in a transaction by a checkout that was reclaimed.
func (l *leaky) watchSessions(ctx context.Context, dsn string) (most int) {
	u, err := url.Parse(dsn)
	if err != nil {
		l.Fatal(err)
	}
	watch, err := sql.Open("pgx", u.String())
	if err != nil {
		l.Fatal(err)
	}
	defer watch.Close()
	for ctx.Err() == nil {
		reclaimed := make(map[uint32]bool)
		for _, r := range l.reported() { // none is held past leak_threshold
			// Its end may take a second, as a hung server's does; on this one it takes milliseconds.
			reclaimed[r.BackendPID] = time.Since(r.CheckedOutAt.Add(r.Duration)) > time.Second
		}
		rows, err := watch.QueryContext(ctx, "SELECT pid, state FROM pg_stat_activity WHERE application_name = 'leaky' AND datname = current_database()")
		if err != nil {
			break
		}
		n := 0
		for rows.Next() {
			var pid uint32
			var state sql.NullString
			if err := rows.Scan(&pid, &state); err != nil && ctx.Err() == nil {
				l.Error(err)
			}
			n++
			if reclaimed[pid] {
				l.Errorf("session %d is still there after its reclaim: %s", pid, state.String)
			}
		}
		_ = rows.Close()
		most = max(most, n)
		time.Sleep(3 * time.Millisecond)
	}
	return most
}
