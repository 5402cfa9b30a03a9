package failover_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// 200 goroutines fail over to a server with little room.
func TestFailoverIsNoStampede(t *testing.T) {
	t.Parallel()
	// A standby must allow as many connections as its primary.
	a := pgtest.Start(t, pgtest.Conf("max_connections=20"))
	b := rig.Standby(t, a)
	rig.NoError(t, a.Exec("CREATE ROLE app LOGIN", "CREATE TABLE hits (n int)", "GRANT ALL ON hits TO app"))
	rig.NoError(t, b.Exec("SELECT 1"))
	rig.Eventually(t, "the role is on the standby", func() bool {
		n, err := b.QueryString("SELECT count(*) FROM pg_class WHERE relname = 'hits' AND has_table_privilege('app', oid, 'INSERT')")
		return err == nil && n == "1"
	})
	as := func(dsn string) string { return strings.Replace(dsn, "postgres@", "app@", 1) }
	for i, base := range []string{"pgx", "pq"} {
		first, second := a, b
		if i == 1 {
			rig.NoError(t, a.RejoinAsStandby(b))
			first, second = b, a
		}
		t.Run(base, func(t *testing.T) {
			cfg, err := managedpg.ParseDSN(rig.WithKeys(as(first.DSN()), "pool_size=10", "base_driver="+base,
				"failover_urls="+url.QueryEscape(as(second.DSN()))))
			rig.NoError(t, err)
			dialing := dialCount{to: second.Addr()}
			if base == "pgx" {
				cfg.PgxConfig = dialing.watch
			}
			cfg.Logger = slog.New(slog.DiscardHandler)
			db, err := managedpg.OpenDB(cfg)
			rig.NoError(t, err)
			defer db.Close()
			stop := make(chan struct{})
			var calls sync.WaitGroup
			var worst sync.Map
			var done atomic.Int64
			for range 200 {
				calls.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						_, err := db.Exec("INSERT INTO hits VALUES (1)")
						if err == nil {
							done.Add(1)
						} else if !errors.Is(err, managedpg.ErrOutcomeUnknown) {
							worst.Store(err.Error(), true)
						}
					}
				})
			}
			rig.Eventually(t, "it gets going", func() bool { return done.Load() > 400 })
			rig.NoError(t, first.Kill())
			rig.NoError(t, second.Promote())
			at := done.Load()
			rig.Eventually(t, "it goes on", func() bool { return done.Load() > at+400 })
			close(stop)
			calls.Wait()
			worst.Range(func(err, _ any) bool {
				t.Errorf("an application's call: %v", err)
				return true
			})
			if most := dialing.most.Load(); most > 10+1 {
				t.Errorf("%d dials at once, want at most pool_size and the monitor's own", most)
			}
		})
	}
}

// dialCount counts connections that pgx is opening to a server: from the dial until the session is used, or the socket is
// closed.
type dialCount struct {
	to        string
	now, most atomic.Int64
}

func (d *dialCount) watch(c *pgx.ConnConfig) error {
	under := c.DialFunc
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != d.to {
			return under(ctx, network, address)
		}
		n := d.now.Add(1)
		for most := d.most.Load(); n > most && !d.most.CompareAndSwap(most, n); most = d.most.Load() {
		}
		conn, err := under(ctx, network, address)
		if err != nil {
			d.now.Add(-1)
			return nil, err
		}
		return &countedConn{Conn: conn, count: d}, nil
	}
	return nil
}

// countedConn is being opened until it is closed, or until a statement is sent on it.
type countedConn struct {
	net.Conn
	count *dialCount
	once  sync.Once
}

func (c *countedConn) Write(b []byte) (int, error) {
	if len(b) > 0 && (b[0] == 'Q' || b[0] == 'P') {
		c.over()
	}
	return c.Conn.Write(b)
}

func (c *countedConn) Close() error {
	c.over()
	return c.Conn.Close()
}

func (c *countedConn) over() { c.once.Do(func() { c.count.now.Add(-1) }) }
