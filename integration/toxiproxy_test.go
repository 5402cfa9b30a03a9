// Package integration holds the driver against real servers and real clients. The tests here lose a server behind
// toxiproxy, which runs in the test's own process.
package integration

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// No goleak here: toxiproxy leaves goroutines behind when a connection is stuck in one of its toxics.
func TestMain(m *testing.M) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // parts of toxiproxy log where they like
	os.Exit(pgtest.Main(m))
}

// toxic is a proxy before a server.
type toxic struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

func newToxic(t *testing.T, c *pgtest.Cluster) *toxic {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := toxiproxy.NewProxy(server, strings.ReplaceAll(t.Name(), "/", "-"), "127.0.0.1:0", c.Addr())
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return &toxic{t, p}
}

// add puts toxics in the way, as toxiproxy's own API describes them.
func (x *toxic) add(toxics ...string) {
	x.t.Helper()
	for _, json := range toxics {
		if _, err := x.proxy.Toxics.AddToxicJson(strings.NewReader(json)); err != nil {
			x.t.Fatal(json, err)
		}
	}
}

func (x *toxic) clear() { x.proxy.Toxics.ResetToxics(context.Background()) }

// dsn is the server's, by way of the proxy.
func (x *toxic) dsn(c *pgtest.Cluster) string {
	return strings.Replace(c.DSN(), c.Addr(), x.proxy.Listen, 1)
}

var (
	blackHole = []string{
		`{"name": "up", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
		`{"name": "down", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
	}
	pause = []string{
		`{"name": "up", "type": "bandwidth", "stream": "upstream", "attributes": {"rate": 0}}`,
		`{"name": "down", "type": "bandwidth", "stream": "downstream", "attributes": {"rate": 0}}`,
	}
	resetAnswers = []string{`{"name": "down", "type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}`}
)

// rig is a server behind a proxy, a second one, and a pool over both.
type rig struct {
	*testing.T
	*toxic
	a, b *pgtest.Cluster
	db   *sql.DB
	pool *managedpg.Pool
}

// each runs a test in all four combinations of base driver and pool policy.
func each(t *testing.T, params string, test func(*rig)) {
	a, b := pgtest.Start(t), pgtest.Start(t, pgtest.OwnSystem())
	for _, base := range []string{"pgx", "pq"} {
		for _, pool := range []string{"", "&pool_size=8"} {
			t.Run(base+pool, func(t *testing.T) {
				for _, c := range []*pgtest.Cluster{a, b} {
					if err := c.Exec("DROP TABLE IF EXISTS calls", "CREATE TABLE calls (id int, port int)"); err != nil {
						t.Fatal(err)
					}
				}
				x := newToxic(t, a)
				cfg, err := managedpg.ParseDSN(x.dsn(a) + "&target_session_attrs=any&base_driver=" + base + pool + params +
					"&failover_urls=" + url.QueryEscape(b.DSN()))
				if err != nil {
					t.Fatal(err)
				}
				cfg.Logger = slog.New(slog.DiscardHandler)
				db, err := managedpg.OpenDB(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { db.Close() })
				p, _ := managedpg.PoolOf(db)
				test(&rig{t, x, a, b, db, p})
			})
		}
	}
}

func (r *rig) insert(ctx context.Context, id int) error {
	_, err := r.db.ExecContext(ctx, "INSERT INTO calls VALUES ($1, current_setting('port')::int)", id)
	return err
}

// rows counts each id on both servers.
func (r *rig) rows() map[int]int {
	r.T.Helper()
	rows := map[int]int{}
	for _, c := range []*pgtest.Cluster{r.a, r.b} {
		ids, err := c.QueryString("SELECT string_agg(id::text, ' ') FROM calls")
		if err != nil {
			r.Fatal(err)
		}
		for _, field := range strings.Fields(ids) {
			id, err := strconv.Atoi(field)
			if err != nil {
				r.Fatal(err)
			}
			rows[id]++
		}
	}
	return rows
}

// warm opens n connections, and leaves them free.
func (r *rig) warm(n int) {
	r.T.Helper()
	r.db.SetMaxIdleConns(n)
	var held []*sql.Conn
	for range n {
		c, err := r.db.Conn(context.Background())
		if err != nil {
			r.Fatal(err)
		}
		held = append(held, c)
	}
	for _, c := range held {
		c.Close()
	}
	r.pool.CheckNow(context.Background())
}

// Everything to and from the server vanishes: calls in flight end, all others go to the second server.
func TestBlackHole(t *testing.T) {
	each(t, "&health_check_interval=500ms&health_check_timeout=1s&connect_timeout=1s", func(r *rig) {
		r.warm(4)
		r.add(blackHole...)
		errs := make([]error, 4)
		var calls sync.WaitGroup
		start := time.Now()
		for i := range errs {
			calls.Go(func() { errs[i] = r.insert(context.Background(), i) })
		}
		calls.Wait()
		if took := time.Since(start); took > 5*time.Second {
			r.Errorf("stuck for %v", took)
		}
		for id := 4; id < 24; id++ {
			errs = append(errs, r.insert(context.Background(), id))
		}
		rows := r.rows()
		for id, err := range errs {
			switch n := rows[id]; {
			case err == nil && n != 1:
				r.Errorf("call %d: told success, and is there %d times", id, n)
			case err != nil && (id >= 4 || !errors.Is(err, managedpg.ErrOutcomeUnknown) || n > 1):
				r.Errorf("call %d: told %v, and is there %d times", id, err, n)
			}
		}
		if s := r.pool.Failover(); s.FailoverCount == 0 || s.IsPrimary {
			r.Errorf("%+v", s)
		}
	})
}

// The line pauses for less time than two probes take to give up: calls in flight wait, and are answered.
func TestPause(t *testing.T) {
	each(t, "&health_check_timeout=3s", func(r *rig) {
		r.warm(2)
		r.add(pause...)
		time.AfterFunc(time.Second, r.clear)
		if err := r.insert(context.Background(), 1); err != nil {
			r.Error(err)
		}
		if n := r.rows()[1]; n != 1 {
			r.Errorf("it is there %d times", n)
		}
		if s := r.pool.Failover(); s.FailoverCount != 0 || !s.IsPrimary {
			r.Errorf("%+v", s)
		}
	})
}

// The statement runs, and its answer is lost with the connection: the caller is told that the outcome is unknown, and the
// statement does not run again.
func TestResetInPlaceOfAnAnswer(t *testing.T) {
	each(t, "", func(r *rig) {
		r.warm(1)
		r.add(resetAnswers...)
		if err := r.insert(context.Background(), 1); !errors.Is(err, managedpg.ErrOutcomeUnknown) {
			r.Errorf("told %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		if n := r.rows()[1]; n > 1 {
			r.Errorf("it is there %d times", n)
		}
		if err := r.insert(context.Background(), 2); err != nil {
			r.Errorf("the next call: %v", err)
		}
		if n := r.rows()[2]; n != 1 {
			r.Errorf("the next call is there %d times", n)
		}
	})
}
