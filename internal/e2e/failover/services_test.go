package failover_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// service is an address that leads to one server now and to another later, as Kubernetes' do.
type service struct {
	listener net.Listener
	to       atomic.Value // a host:port; "": to none
	forward  sync.WaitGroup
}

func newService(t *testing.T, to string) *service {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	rig.NoError(t, err)
	s := &service{listener: l}
	s.to.Store(to)
	s.forward.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", s.to.Load().(string))
			if err != nil {
				_ = client.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
				s.forward.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
					_ = pair[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.forward.Wait() })
	return s
}

func (s *service) url() string {
	return "postgres://postgres@" + s.listener.Addr().String() + "/postgres?sslmode=disable"
}

// Two services, one that leads to the primary and one to the replicas, as the recipe for CloudNativePG has them: writes wait for the
// promotion, reads are on the replica, and after the services have followed all is as before.
func TestServicesForWritingAndReading(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			a := pgtest.Start(t)
			b := rig.Standby(t, a)
			rw, ro := newService(t, a.Addr()), newService(t, b.Addr())
			db := rig.Open(t, rig.WithKeys(rw.url(), "failover_urls="+url.QueryEscape(ro.url()), "pool_size=4", "standby_reads=true",
				"health_check_interval=200ms", "base_driver="+base))
			port := func(ctxOf bool) int {
				ctx := t.Context()
				if ctxOf {
					ctx = managedpg.ReadOnly(ctx)
				}
				var at int
				if err := db.QueryRowContext(ctx, "SELECT inet_server_port()").Scan(&at); err != nil {
					return 0
				}
				return at
			}
			rig.Exec(t, db, "CREATE TABLE t (i int)")
			rig.Eventually(t, "the replica has the table", func() bool {
				name, err := b.QueryString("SELECT to_regclass('t')")
				return err == nil && name == "t"
			})
			rig.Eventually(t, "reads are on the replica", func() bool { return port(true) == b.Port() })
			if at := port(false); at != a.Port() {
				t.Errorf("writes go to port %d", at)
			}

			rig.NoError(t, a.Kill())
			wrote := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (1)")
				wrote <- err
			}()
			time.Sleep(300 * time.Millisecond) // the operator takes its time
			rig.NoError(t, b.Promote())
			rw.to.Store(b.Addr())
			rig.NoError(t, <-wrote)
			rig.NoError(t, a.RejoinAsStandby(b))
			ro.to.Store(a.Addr())

			rig.Eventually(t, "writes and reads go where they belong", func() bool {
				_, err := db.ExecContext(t.Context(), "INSERT INTO t VALUES (2)")
				return err == nil && port(false) == b.Port() && port(true) == a.Port()
			})
			rig.Eventually(t, "the service for writing is in use", func() bool {
				return rig.PoolOf(t, db).Failover().Current == rw.listener.Addr().String()+"/postgres"
			})
			for _, e := range rig.PoolOf(t, db).CheckNow(t.Context()).Endpoints {
				if e.Fenced || e.State != "up" {
					t.Errorf("%s is %s, fenced %v", e.Endpoint, e.State, e.Fenced)
				}
			}
		})
	}
}
