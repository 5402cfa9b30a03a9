package pgtest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// common is the cluster that all tests of the binary share.
var common struct {
	mu      sync.Mutex
	cluster *Cluster
}

var databases atomic.Int64

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
	name := fmt.Sprintf("db%d", databases.Add(1))
	if err := c.Exec("CREATE DATABASE " + name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return c.DSNFor(name)
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
	common.mu.Lock()
	defer common.mu.Unlock()
	if common.cluster != nil {
		err = errors.Join(err, common.cluster.Close())
		common.cluster = nil
	}
	if err = errors.Join(err, ground.hold(false)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	return code
}
