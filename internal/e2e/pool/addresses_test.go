package pool_test

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// name is a host with several addresses, each of which leads to a server, or to one that accepts and says nothing.
type name struct {
	port      string
	addresses []string
	lost      atomic.Bool // the resolver fails
	looked    atomic.Int64
}

// newName gives each of the servers an address on loopback, all with one port. "" accepts and says nothing.
func newName(t *testing.T, servers ...string) *name {
	t.Helper()
	n := &name{port: "0"}
	for i, server := range servers {
		ip := "127.0.0." + string(rune('2'+i))
		l, err := net.Listen("tcp", ip+":"+n.port)
		rig.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		_, n.port, _ = net.SplitHostPort(l.Addr().String())
		n.addresses = append(n.addresses, ip)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if server == "" {
						_, _ = io.Copy(io.Discard, c)
						return
					}
					up, err := net.Dial("tcp", server)
					if err != nil {
						return
					}
					defer up.Close()
					go func() { _, _ = io.Copy(up, c); up.Close() }()
					_, _ = io.Copy(c, up)
				}()
			}
		}()
	}
	return n
}

func (n *name) lookup(context.Context, string) ([]string, error) {
	n.looked.Add(1)
	if n.lost.Load() {
		return nil, &net.DNSError{Err: "server misbehaving", Name: "db.example", IsTemporary: true}
	}
	return n.addresses, nil
}

func (n *name) configure(c *pgx.ConnConfig) error {
	c.LookupFunc = n.lookup
	return nil
}

func (n *name) dsn(keys ...string) string {
	return rig.WithKeys("postgres://postgres@db.example:"+n.port+"/postgres?sslmode=disable", keys...)
}

// open opens the name with both policies of managedpg, and bare.
func (n *name) each(t *testing.T, keys []string, test func(t *testing.T, db *sql.DB)) {
	for policy, more := range map[string]string{"bare": "", "database/sql": "x", "pool_size": "pool_size=4"} {
		t.Run(policy, func(t *testing.T) {
			if policy == "bare" {
				cfg, err := pgx.ParseConfig(n.dsn(keys...))
				rig.NoError(t, err)
				rig.NoError(t, n.configure(cfg))
				db := stdlib.OpenDB(*cfg)
				t.Cleanup(func() { db.Close() })
				test(t, db)
				return
			}
			all := append([]string{"health_check_interval=100ms"}, keys...)
			if more != "x" {
				all = append(all, more)
			}
			test(t, rig.OpenConfig(t, n.dsn(all...), func(c *managedpg.Config) { c.PgxConfig = n.configure }))
		})
	}
}

// A name that leads to a standby and to the primary reaches the primary, and remembers it.
func TestANameOfAStandbyAndAPrimary(t *testing.T) {
	t.Parallel()
	primary := pgtest.Start(t)
	n := newName(t, rig.Standby(t, primary).Addr(), primary.Addr())
	n.each(t, []string{"target_session_attrs=read-write"}, func(t *testing.T, db *sql.DB) {
		db.SetMaxIdleConns(0)
		for range 20 {
			if port := rig.Value[int](t, db, "SELECT inet_server_port()"); port != primary.Port() {
				t.Errorf("it is on port %d", port)
			}
		}
	})
}

// An address that accepts and says nothing costs its share of connect_timeout once, and is remembered.
func TestANameOfWhichTheFirstAddressHangs(t *testing.T) {
	t.Parallel()
	n := newName(t, "", pgtest.Shared(t).Addr())
	n.each(t, []string{"connect_timeout=1"}, func(t *testing.T, db *sql.DB) {
		db.SetMaxIdleConns(0)
		rig.Exec(t, db, "SELECT 1")
		if _, ours := managedpg.PoolOf(db); !ours {
			return // the bare driver pays for it each time
		}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
			if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
				t.Errorf("once it is known: %v", err)
			}
			cancel()
		}
	})
}

// A resolver that fails leaves what it has said in use.
func TestResolverThatFails(t *testing.T) {
	t.Parallel()
	n := newName(t, pgtest.Shared(t).Addr(), pgtest.Shared(t).Addr())
	n.each(t, nil, func(t *testing.T, db *sql.DB) {
		db.SetMaxIdleConns(0)
		rig.Exec(t, db, "SELECT 1")
		n.lost.Store(true)
		defer n.lost.Store(false)
		_, ours := managedpg.PoolOf(db)
		if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil && ours {
			t.Errorf("with the addresses known: %v", err)
		}
	})
}

// When no address will do, what each said is in the error.
func TestNoAddressWillDo(t *testing.T) {
	n := newName(t, "127.0.0.1:1", "127.0.0.1:1")
	db := rig.OpenConfig(t, n.dsn(), func(c *managedpg.Config) { c.PgxConfig = n.configure })
	_, err := db.ExecContext(t.Context(), "SELECT 1")
	var connectErr interface{ Unwrap() error }
	if err == nil || !errors.As(err, &connectErr) || strings.Count(err.Error(), "127.0.0.") < 2 {
		t.Errorf("%v", err)
	}
}
