package pgtest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/lib/pq"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// each runs a test over both base drivers, with and without TLS, against a table t of one column.
func each(t *testing.T, test func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB), opts ...pgtest.ProxyOption) {
	dsn := pgtest.Database(t)
	direct := open(t, "pgx", dsn)
	for _, driver := range []string{"pgx", "postgres"} {
		for _, tls := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/tls=%t", driver, tls), func(t *testing.T) {
				opts := opts
				if tls {
					opts = append(slices.Clone(opts), pgtest.WithTLS())
				}
				p := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), opts...)
				_, err := direct.Exec("DROP TABLE IF EXISTS t; CREATE TABLE t (n int)")
				must(t, err)
				test(t, p, open(t, driver, p.DSN(dsn)), direct)
			})
		}
	}
}

func rows(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	must(t, db.QueryRow("SELECT count(*) FROM t").Scan(&n))
	return n
}

// fired fails the test when the fault doesn't happen.
func fired(t *testing.T, p *pgtest.Proxy) {
	t.Helper()
	select {
	case <-p.Fired():
	case <-time.After(10 * time.Second):
		t.Fatal("the fault did not happen")
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestProxyIsTransparent(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		var n int
		var long string
		must(t, db.QueryRow("SELECT $1::int, repeat('x', 1000000)", 7).Scan(&n, &long))
		if n != 7 || len(long) != 1000000 {
			t.Errorf("got %d and %d bytes", n, len(long))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if _, err := db.ExecContext(ctx, "SELECT pg_sleep(20)"); err == nil {
			t.Error("the cancelled statement succeeded")
		}
		eventually(t, "the cancel request did not come by", func() bool { return p.Cancels() > 0 })
		eventually(t, "the statement goes on", func() bool {
			must(t, direct.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)' AND "+
				"state = 'active' AND datname = current_database()").Scan(&n))
			return n == 0
		})
	})
}

func TestProxyPassesCopy(t *testing.T) {
	dsn := pgtest.Database(t)
	p := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
	db := open(t, "postgres", p.DSN(dsn))
	_, err := db.Exec("CREATE TABLE t (n int)")
	must(t, err)
	tx, err := db.Begin()
	must(t, err)
	stmt, err := tx.Prepare("COPY t (n) FROM STDIN")
	must(t, err)
	for i := range 1000 {
		_, err := stmt.Exec(i)
		must(t, err)
	}
	_, err = stmt.Exec()
	must(t, err)
	must(t, stmt.Close())
	must(t, tx.Commit())
	if n := rows(t, db); n != 1000 {
		t.Errorf("%d rows", n)
	}
}

func TestProxyCounts(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		ctx := context.Background()
		conn, err := db.Conn(ctx)
		must(t, err)
		must(t, conn.PingContext(ctx))
		stmt, err := conn.PrepareContext(ctx, "SELECT $1::int + 1")
		must(t, err)
		if p.Connections() != 1 || p.Accepted() != 1 {
			t.Errorf("%d connections, %d accepted", p.Connections(), p.Accepted())
		}
		p.ResetCounts()
		for range 3 {
			var n int
			must(t, stmt.QueryRow(1).Scan(&n))
		}
		_, err = conn.ExecContext(ctx, "SELECT 2")
		must(t, err)
		if p.RoundTrips() != 4 {
			t.Errorf("%d round trips for 4 statements", p.RoundTrips())
		}
		if q := strings.Join(p.Queries(), ";"); q != "SELECT 2" {
			t.Errorf("queries %q", q)
		}
		must(t, stmt.Close())
		must(t, conn.Close())
		must(t, db.Close())
		eventually(t, "a closed connection is still counted", func() bool { return p.Connections() == 0 })
	})
}

// What a driver makes of a lost answer is its own affair; what the server did is not.
func TestFaultsAfterTheStatement(t *testing.T) {
	for name, do := range map[string]pgtest.Action{
		"reset": pgtest.Reset,
		"close": pgtest.CloseQuietly,
		"fatal": pgtest.Fatal("57P01"),
		"cut":   pgtest.AnswerUntil('C'),
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
				tx, err := db.Begin() // in which no driver or pool tries again
				must(t, err)
				p.Arm(pgtest.Fault{On: pgtest.OnText("INSERT"), Do: do})
				if _, err := tx.Exec("INSERT INTO t VALUES ($1)", 1); err == nil && name != "cut" {
					t.Error("a lost answer was no error")
				}
				fired(t, p)
				tx.Rollback()
				eventually(t, "the connection lives on", func() bool { return p.Connections() == 0 })
				if n := rows(t, direct); n != 0 {
					t.Errorf("%d rows of a transaction that was lost", n)
				}

				must(t, db.Ping())
				tx, err = db.Begin()
				must(t, err)
				_, err = tx.Exec("INSERT INTO t VALUES ($1)", 1)
				must(t, err)
				p.Arm(pgtest.Fault{On: func(m pgtest.Message) bool { return strings.EqualFold(m.Text, "commit") }, Do: do})
				if err := tx.Commit(); err == nil && name != "cut" {
					t.Error("a lost COMMIT was no error")
				}
				fired(t, p)
				if n := rows(t, direct); n != 1 {
					t.Errorf("%d rows of a transaction whose COMMIT was answered into the void", n)
				}
			})
		})
	}
}

func TestFaultBeforeTheStatement(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		ctx := context.Background()
		stmt, err := db.Prepare("INSERT INTO t VALUES ($1)")
		must(t, err)
		conn, err := db.Conn(ctx)
		must(t, err)
		defer conn.Close()
		p.Arm(pgtest.Fault{On: pgtest.OnExecute(), Do: pgtest.Reset, Before: true})
		stmt.Exec(1)
		fired(t, p)
		// Whoever tries again is right to do so here: at most one row.
		if n := rows(t, direct); n > 1 {
			t.Errorf("%d rows", n)
		}
		must(t, db.Ping())
	})
}

func TestFatalCarriesItsCode(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		p.Arm(pgtest.Fault{On: pgtest.OnText("SELECT 1"), Do: pgtest.Fatal("57P01")})
		conn, err := db.Conn(context.Background())
		must(t, err)
		defer conn.Close()
		_, err = conn.ExecContext(context.Background(), "SELECT 1")
		var pgxErr *pgconn.PgError
		if errors.As(err, &pgxErr) && pgxErr.Code != "57P01" || err == nil {
			t.Errorf("got %v", err)
		}
	})
}

func TestAnswerReplacesTheServers(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		must(t, db.Ping())
		p.Arm(pgtest.Fault{On: pgtest.OnQuery("INSERT"), Do: pgtest.Answer([]byte("C\x00\x00\x00\x10INSERT 0 99\x00Z\x00\x00\x00\x05I"))})
		result, err := db.Exec("INSERT INTO t VALUES (1)")
		must(t, err)
		if n, _ := result.RowsAffected(); n != 99 {
			t.Errorf("%d rows affected", n)
		}
		if n := rows(t, db); n != 1 || p.Accepted() != 1 {
			t.Errorf("%d rows, %d connections opened", n, p.Accepted())
		}
	})
}

func TestHangUntilReleased(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		must(t, db.Ping())
		p.Arm(pgtest.Fault{On: pgtest.OnText("INSERT"), Do: pgtest.Hang})
		done := make(chan error)
		go func() {
			_, err := db.Exec("INSERT INTO t VALUES ($1)", 1)
			done <- err
		}()
		fired(t, p)
		if n := rows(t, direct); n != 1 {
			t.Errorf("%d rows", n)
		}
		select {
		case err := <-done:
			t.Fatalf("answered with %v", err)
		default:
		}
		p.Release()
		must(t, <-done)
		must(t, db.Ping())

		conn, err := db.Conn(context.Background()) // on which nobody tries again
		must(t, err)
		defer conn.Close()
		p.Arm(pgtest.Fault{On: pgtest.OnText("INSERT"), Do: pgtest.Hang, Before: true})
		go func() {
			_, err := conn.ExecContext(context.Background(), "INSERT INTO t VALUES ($1)", 1)
			done <- err
		}()
		fired(t, p)
		p.Release()
		if err := <-done; err == nil {
			t.Error("a statement that was held back succeeded")
		}
		if n := rows(t, direct); n != 1 {
			t.Errorf("%d rows", n)
		}
	})
}

func TestResetAllAndDown(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		must(t, db.Ping())
		conn, err := db.Conn(context.Background())
		must(t, err)
		defer conn.Close()
		p.ResetAll()
		if err := conn.PingContext(context.Background()); err == nil {
			t.Error("a reset connection answers")
		}
		p.SetDown(true)
		if err := db.Ping(); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("a proxy that is down: %v", err)
		}
		p.SetDown(false)
		must(t, db.Ping())
	})
}

func TestProxyOutlivesItsServer(t *testing.T) {
	c := pgtest.Start(t)
	p := pgtest.NewProxy(t, c.Addr())
	db := open(t, "pgx", p.DSN(c.DSN()))
	must(t, db.Ping())
	must(t, c.Kill())
	if err := db.Ping(); err == nil {
		t.Error("a killed server answers")
	}
	eventually(t, "connections to a killed server are open", func() bool { return p.Connections() == 0 })
	must(t, c.Restart())
	must(t, db.Ping())
	must(t, c.Freeze())
}

// A proxy that is down refuses, and finds its port free when it comes back, also while processes are started beside it.
func TestProxyGoesDownBesideForks(t *testing.T) {
	p := pgtest.NewProxy(t, pgtest.Shared(t).Addr())
	var over atomic.Bool
	var forks sync.WaitGroup
	for range 4 {
		forks.Go(func() {
			for !over.Load() {
				if err := exec.Command("true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 500 {
		p.SetDown(true)
		if c, err := net.Dial("tcp", p.Addr()); err == nil {
			t.Error("a proxy that is down takes connections")
			c.Close()
		}
		p.SetDown(false)
	}
	over.Store(true)
	forks.Wait()
}

// The reason why the proxy is there: bare drivers run a statement twice and report success. Should a new version of one fail
// here, it has got better.
func TestBareDriversDouble(t *testing.T) {
	doubles := map[string]pgtest.Action{"pgx": pgtest.Reset, "postgres": pgtest.Fatal("57P01")}
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		must(t, db.Ping())
		driver, _, _ := strings.Cut(strings.TrimPrefix(t.Name(), "TestBareDriversDouble/"), "/")
		p.Arm(pgtest.Fault{On: pgtest.OnQuery("INSERT"), Do: doubles[driver]})
		_, err := db.Exec("INSERT INTO t VALUES (1)")
		fired(t, p)
		if n := rows(t, direct); n != 2 || err != nil {
			t.Errorf("%d rows, error %v", n, err)
		}
	})
}

func TestWithoutWaitingTheStatementStillRuns(t *testing.T) {
	each(t, func(t *testing.T, p *pgtest.Proxy, db, direct *sql.DB) {
		conn, err := db.Conn(context.Background()) // on which nobody tries again
		must(t, err)
		defer conn.Close()
		hooked := false
		p.Arm(pgtest.Fault{On: pgtest.OnQuery("INSERT"), Do: pgtest.Reset, NoWait: true, Hook: func() { hooked = true }})
		_, err = conn.ExecContext(context.Background(), "INSERT INTO t SELECT 1 FROM pg_sleep(0.05)")
		fired(t, p)
		if err == nil || !hooked {
			t.Errorf("error %v, hook called: %t", err, hooked)
		}
		eventually(t, "the statement did not run", func() bool { return rows(t, direct) == 1 })
	}, pgtest.DropCancels()) // such as pgx sends for a connection that it lost
}

func TestDroppedCancelsLeaveTheStatementAlone(t *testing.T) {
	dsn := pgtest.Database(t)
	p := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
	db := open(t, "postgres", p.DSN(dsn))
	must(t, db.Ping())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(ctx, "CREATE TABLE t AS SELECT 1 AS n FROM pg_sleep(0.1)"); p.Cancels() != 1 {
		t.Errorf("%d cancel requests, error %v", p.Cancels(), err)
	}
	if n := rows(t, open(t, "pgx", dsn)); n != 1 {
		t.Errorf("%d rows", n)
	}
}
