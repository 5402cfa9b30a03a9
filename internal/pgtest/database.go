package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// common is the cluster that all tests of the binary share.
var common struct {
	mu        sync.Mutex
	cluster   *Cluster
	conn      *pgconn.PgConn // kept, since a new session costs as much as half a database
	databases int
}

// Shared is a cluster that the whole test binary shares, started when it is first asked for, with 200 connections. A test
// must leave it as it found it; what breaks a server belongs on one from Start.
func Shared(tb testing.TB) *Cluster {
	tb.Helper()
	common.mu.Lock()
	defer common.mu.Unlock()
	if common.cluster == nil {
		c, err := New(Conf("max_connections=200"))
		if err != nil {
			tb.Fatal(err)
		}
		common.cluster = c
	}
	return common.cluster
}

// Database is the URL of a fresh, empty database on the shared cluster. It is dropped with the test, whoever is still
// connected.
func Database(tb testing.TB) string {
	tb.Helper()
	c := Shared(tb)
	common.mu.Lock()
	common.databases++
	name := fmt.Sprintf("db%d", common.databases)
	common.mu.Unlock()
	if err := execShared("CREATE DATABASE " + name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := execShared("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return c.DSNFor(name)
}

// execShared is Exec on the kept connection. After an error the next call connects again.
func execShared(sql string) error {
	common.mu.Lock()
	defer common.mu.Unlock()
	// A checkpoint that others keep busy is no reason to fail.
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if common.conn == nil {
		conn, err := common.cluster.admin(ctx)
		if err != nil {
			return err
		}
		common.conn = conn
	}
	if _, err := common.conn.Exec(ctx, sql).ReadAll(); err != nil {
		common.conn.Close(ctx)
		common.conn = nil
		return fmt.Errorf("pgtest: %s: %w", sql, err)
	}
	return nil
}

// M is what a *testing.M does.
type M interface{ Run() int }

// Main runs a test binary's tests and then stops and removes what they shared; it is meant for TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// A binary without it is cleaned up after too, but makes its template anew whenever it has no cluster left.
func Main(m M) int { return Suite(m).Run() }

// Suite is Main for whoever wants to run something themselves:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite(m)) }
func Suite(m M) M { return suite{m} }

type suite struct{ M }

func (s suite) Run() int {
	err := ground.hold(true)
	code := s.M.Run()
	if err = errors.Join(err, closeShared(), ground.hold(false)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}

func closeShared() error {
	common.mu.Lock()
	defer common.mu.Unlock()
	if common.cluster == nil {
		return nil
	}
	err := common.cluster.Close()
	if common.conn != nil {
		common.conn.Close(context.Background()) // its server is gone already
	}
	common.cluster, common.conn = nil, nil
	return err
}
