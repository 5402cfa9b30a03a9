package servers

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// newProxy is a HAProxy that leads to the first server as long as it answers, then to the second.

func newProxy(t *testing.T, first, second *pgtest.Cluster) (addr string) {
	t.Helper()
	addr = "127.0.0.1:" + freePort(t)
	h := newHost(t)
	h.run("haproxy", "haproxy", "-db", "-f", h.file("haproxy.cfg", `defaults
	mode tcp
	timeout connect 1s
	timeout check 300ms
	timeout client 1m
	timeout server 1m
listen postgres
	bind `+addr+`
	option pgsql-check user postgres
	default-server inter 100ms fall 2 rise 1 on-marked-down shutdown-sessions
	server first `+first.Addr()+` check
	server second `+second.Addr()+` check backup
`))
	eventually(t, "HAProxy answers", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// One address, whose server hangs. HAProxy ends its sessions and leads to the standby, where nothing can be written
// until it is promoted; and back to the old primary.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"pgx", "pq"} {
		for _, size := range []string{"&pool_size=4", "&pool_size=none"} {
			t.Run(base+size, func(t *testing.T) {
				ctx := context.Background()
				primary, standby := pair(t)
				db, pool := open(t, "postgres://postgres@"+newProxy(t, primary, standby)+"/postgres?sslmode=disable"+
					"&target_session_attrs=read-write&base_driver="+base+size)
				w := write(t, db)
				w.goesOn()
				must(t, primary.Freeze())
				eventually(t, "a connection to the standby turned down", func() bool {
					err := db.PingContext(ctx)
					return errors.Is(err, managedpg.ErrNoEndpoint) && strings.Contains(err.Error(), "it is a standby, wanted is read-write")
				})
				must(t, standby.Promote())
				w.goesOn()
				h := pool.CheckNow(ctx).Endpoints[0]
				if h.State != failover.Up || h.Role != failover.ReadWrite || h.Timeline != 2 {
					t.Errorf("health behind HAProxy: %+v", h)
				}
				w.checkOn(standby)

				// The old primary comes back as it was, and HAProxy leads to it again. Once that was seen it is not written to.
				must(t, primary.Restart())
				must(t, primary.Exec("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"))
				eventually(t, "the old primary is fenced", func() bool { return pool.CheckNow(ctx).Endpoints[0].Fenced })
				_, err := db.ExecContext(ctx, "INSERT INTO written VALUES (-1)")
				if !errors.Is(err, managedpg.ErrNoEndpoint) || !strings.Contains(err.Error(), "on timeline 1, while") {
					t.Errorf("a write to the old primary: %v", err)
				}
				if n, err := primary.QueryString("SELECT count(*) FROM written WHERE id = -1"); n != "0" || err != nil {
					t.Errorf("the old primary was written to %s times, %v", n, err)
				}
			})
		}
	}
}
