package pgtest_test

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite(m)) }

func open(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func value(t *testing.T, c *pgtest.Cluster, query string) string {
	t.Helper()
	v, err := c.QueryString(query)
	must(t, err)
	return v
}

func standby(t *testing.T, c *pgtest.Cluster) *pgtest.Cluster {
	t.Helper()
	s, err := c.Standby()
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// answers is whether a client gets an answer within the time.
func answers(c *pgtest.Cluster, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return c.WaitReady(ctx)
}

func TestClusterTakesItsConfiguration(t *testing.T) {
	c := pgtest.Start(t, pgtest.Conf("max_connections=17", "search_path=it's, public"),
		pgtest.HBA("host all all 127.0.0.1/32 scram-sha-256"))
	if got := value(t, c, "SHOW max_connections"); got != "17" {
		t.Errorf("max_connections is %s", got)
	}
	if got := value(t, c, "SHOW search_path"); got != "it's, public" {
		t.Errorf("search_path is %s", got)
	}
	must(t, c.Exec("ALTER USER postgres PASSWORD 'p'", "ALTER SYSTEM SET work_mem = '7MB'", "SELECT pg_reload_conf()"))
	if err := open(t, "pgx", c.DSN()).Ping(); err == nil {
		t.Error("no password was asked for")
	}
	must(t, open(t, "pgx", c.DSNFor("postgres", "password=p", "application_name=a b")).Ping())
	must(t, open(t, "pgx", "user=postgres host="+c.SocketDir()+" port="+value(t, c, "SHOW port")).Ping())
	must(t, c.Restart())
	if got := value(t, c, "SHOW work_mem"); got != "7MB" {
		t.Errorf("work_mem is %s in spite of ALTER SYSTEM", got)
	}
}

func TestStartFailureShowsTheLog(t *testing.T) {
	_, err := pgtest.New(pgtest.Conf("work_mem=plenty"))
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "work_mem": "plenty"`) {
		t.Errorf("got %v", err)
	}
	c := pgtest.Shared(t)
	_, err = pgtest.New(pgtest.Port(c.Port()))
	if err == nil || !strings.Contains(err.Error(), "Address already in use") {
		t.Errorf("got %v", err)
	}
}

func TestMissingServerSaysHowToInstallOne(t *testing.T) {
	pgtest.Shared(t).Port() // whose binaries are looked up once
	t.Setenv("MANAGEDPG_PG_BIN", t.TempDir())
	if _, err := pgtest.FindBinaries(); err == nil || !strings.Contains(err.Error(), "MANAGEDPG_PG_BIN") {
		t.Errorf("got %v", err)
	}
	t.Setenv("MANAGEDPG_PG_BIN", "")
	dir, err := pgtest.FindBinaries()
	must(t, err)
	_, err = os.Stat(filepath.Join(dir, "initdb"))
	must(t, err)
	if !strings.Contains(pgtest.ErrNoPostgres.Error(), "apt-get install postgresql") {
		t.Errorf("got %v", pgtest.ErrNoPostgres)
	}
}

func TestCloseInEveryState(t *testing.T) {
	for name, bring := range map[string]func(*pgtest.Cluster) error{
		"running": func(*pgtest.Cluster) error { return nil },
		"frozen":  (*pgtest.Cluster).Freeze,
		"killed":  (*pgtest.Cluster).Kill,
		"stopped": (*pgtest.Cluster).Stop,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := pgtest.New()
			must(t, err)
			must(t, bring(c))
			must(t, c.Close())
			must(t, c.Close())
			if _, err := os.Stat(c.SocketDir()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", c.SocketDir(), err)
			}
			if err := c.Restart(); err == nil {
				t.Error("a closed cluster started again")
			}
		})
	}
}

func TestKillAndRestartOnTheSamePort(t *testing.T) {
	c := pgtest.Start(t)
	db := open(t, "pgx", c.DSN())
	must(t, db.Ping())
	port := c.Port()
	must(t, c.Kill())
	if err := db.Ping(); err == nil {
		t.Error("a killed server answers")
	}
	must(t, c.Restart())
	must(t, c.Stop())
	if err := db.Ping(); err == nil {
		t.Error("a stopped server answers")
	}
	must(t, c.Restart())
	must(t, db.Ping())
	if c.Port() != port {
		t.Errorf("port moved from %d to %d", port, c.Port())
	}
}

func TestFreezeAndThaw(t *testing.T) {
	c := pgtest.Start(t)
	db := open(t, "pgx", c.DSN())
	must(t, db.Ping())
	must(t, c.Freeze())
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := db.PingContext(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen backend: %v", err)
	}
	if err := answers(c, 100*time.Millisecond); err == nil {
		t.Error("a frozen server answers")
	}
	must(t, c.Thaw())
	must(t, answers(c, 5*time.Second))
	must(t, c.Freeze())
	must(t, c.Stop())
	if c.Freeze() == nil || c.Thaw() == nil {
		t.Error("a stopped server froze or thawed")
	}
}

func TestBlackHole(t *testing.T) {
	c := pgtest.Start(t, pgtest.Conf("max_connections=20"))
	undo, err := c.BlackHole()
	must(t, err)
	var timeout net.Error
	if conn, err := net.DialTimeout("tcp", c.Addr(), 100*time.Millisecond); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a dial gives %v, %v", conn, err)
	}
	must(t, undo())
	must(t, answers(c, 5*time.Second))
}

func TestFailoverAndRejoin(t *testing.T) {
	a := pgtest.Start(t, pgtest.Conf("max_connections=33"))
	must(t, a.Exec("CREATE TABLE t (n int)"))
	b := standby(t, a)
	must(t, a.Exec("INSERT INTO t VALUES (1)"))
	if err := b.Exec("INSERT INTO t VALUES (2)"); err == nil {
		t.Error("the standby took a write")
	}
	if got := value(t, b, "SHOW max_connections"); got != "33" {
		t.Errorf("the standby's max_connections is %s", got)
	}
	must(t, a.Kill())
	must(t, b.Promote())
	must(t, b.Exec("INSERT INTO t VALUES (3)"))

	must(t, a.Restart()) // un-demoted: two writers
	must(t, a.Exec("INSERT INTO t VALUES (4)"))

	must(t, a.RejoinAsStandby(b))
	if got := value(t, a, "SELECT pg_is_in_recovery()::text || (SELECT array_agg(n ORDER BY n) FROM t)::text"); got != "true{1,3}" {
		t.Errorf("the old primary has %s", got)
	}
	must(t, b.Kill())
	must(t, a.Promote())
	must(t, b.RejoinAsStandby(a))
	if got := value(t, a, "SELECT application_name FROM pg_stat_replication"); got != b.Name() {
		t.Errorf("%q streams, not %q", got, b.Name())
	}
}

func TestDatabaseIsFreshAndItsBackendsAreCounted(t *testing.T) {
	dsn, other := pgtest.Database(t), pgtest.Database(t)
	if dsn == other {
		t.Fatal("one database for two")
	}
	c := pgtest.Shared(t)
	for _, driver := range []string{"pgx", "postgres"} {
		db := open(t, driver, dsn)
		conn, err := db.Conn(context.Background())
		must(t, err)
		defer conn.Close()
		var name string
		must(t, conn.QueryRowContext(context.Background(), "SELECT current_database()").Scan(&name))
		n, err := c.Backends(name)
		if err != nil || n != 1 {
			t.Errorf("%s: %d backends, %v", driver, n, err)
		}
		n, err = c.TerminateBackends(name)
		if err != nil || n != 1 {
			t.Errorf("%s: %d terminated, %v", driver, n, err)
		}
		if err := conn.PingContext(context.Background()); err == nil {
			t.Errorf("%s: a terminated session answers", driver)
		}
	}
}
