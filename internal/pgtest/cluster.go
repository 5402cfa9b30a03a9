package pgtest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Cluster is one PostgreSQL server with its data folder. It keeps its port for life, so that it comes back where its
// clients knew it. Its methods may be called from several goroutines.
type Cluster struct {
	name string
	bin  string
	dir  string // the Unix socket and the log; the data folder lies in it
	set  settings
	port int

	mu     sync.Mutex // held while the server is started, stopped, frozen or killed
	server *os.Process
	closed bool
}

// New starts a cluster on a free loopback port, for a program that has no testing.TB; it must be closed. Its folder is a
// temporary one, under TMPDIR if that is set, else in memory if there is room. PostgreSQL is the one in the folder
// MANAGEDPG_PG_BIN, else the one in PATH, else the newest in Debian's /usr/lib/postgresql. When the process is root, the
// server runs as postgres, or as nobody where there is no such user.
//
// The server has a superuser postgres that needs no password, UTF8, locale C, and does not wait for the disk.
func New(opts ...Option) (*Cluster, error) {
	c, err := newCluster(opts)
	if err != nil {
		return nil, err
	}
	if c.set.own {
		err = initdb(c.bin, c.data())
	} else {
		err = copyTree(ground.template(), c.data())
	}
	if err == nil {
		err = c.configure(defaults...)
	}
	if err == nil {
		err = c.startOnFreePort()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Start is New for a test: the cluster is closed with it, and the test fails when there is none to be had.
func Start(tb testing.TB, opts ...Option) *Cluster {
	tb.Helper()
	c, err := New(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// newCluster makes a cluster's folder, without data in it yet.
func newCluster(opts []Option) (*Cluster, error) {
	bin, number, err := ground.enter()
	if err != nil {
		return nil, err
	}
	c := &Cluster{name: "s" + strconv.Itoa(number), bin: bin, dir: filepath.Join(ground.dir, strconv.Itoa(number))}
	for _, opt := range opts {
		opt(&c.set)
	}
	if err := makeDir(c.dir); err != nil {
		return nil, errors.Join(err, ground.leave())
	}
	return c, nil
}

// startOnFreePort tries another port when someone else took the one found free before the server could.
func (c *Cluster) startOnFreePort() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set.port != 0 {
		c.port = c.set.port
		return c.start()
	}
	var err error
	for range 10 {
		if c.port, err = ground.reservePort(); err != nil {
			return err
		}
		if err = c.start(); !errors.Is(err, errPortTaken) {
			return err
		}
		ground.freePort(c.port)
	}
	return err
}

// Close ends the server in whatever state it is, frozen included, and removes its folder. A second Close does nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	err := errors.Join(c.kill(), os.RemoveAll(c.dir))
	ground.freePort(c.port)
	return errors.Join(err, ground.leave())
}

// Name is the cluster's application_name and replication slot when it is a standby, as in synchronous_standby_names.
// It is unique within the process.
func (c *Cluster) Name() string { return c.name }

// Port is the server's TCP port on 127.0.0.1.
func (c *Cluster) Port() int { return c.port }

// Addr is the server's host:port.
func (c *Cluster) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)) }

// SocketDir is the folder of the server's Unix socket, as a DSN's host takes it.
func (c *Cluster) SocketDir() string { return c.dir }

// DSN is the URL of database postgres for user postgres, over TCP.
func (c *Cluster) DSN() string { return c.DSNFor("postgres") }

// DSNFor is the URL of database db, with further parameters as "key=value".
func (c *Cluster) DSNFor(db string, params ...string) string {
	query := url.Values{"sslmode": {"disable"}}
	for _, p := range params {
		key, value, _ := strings.Cut(p, "=")
		query.Set(key, value)
	}
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: c.Addr(), Path: "/" + db}
	// libpq, unlike net/url, takes a plus sign for itself.
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")
	return u.String()
}

// String says which server it is.
func (c *Cluster) String() string { return fmt.Sprintf("postgres %s on %s", c.name, c.Addr()) }

func (c *Cluster) data() string    { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.dir, "log") }
