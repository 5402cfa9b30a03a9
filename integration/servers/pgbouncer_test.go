package servers

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// bouncer is a PgBouncer before a server.
type bouncer struct {
	*host
	mode, addr string
}

func newBouncer(t *testing.T, mode string, c *pgtest.Cluster) *bouncer {
	t.Helper()
	b := &bouncer{newHost(t), mode, "127.0.0.1:" + freePort(t)}
	b.file("users", `"postgres" ""`)
	ini := b.lead(c)
	b.run("pgbouncer", "pgbouncer", ini)
	eventually(t, "PgBouncer answers", func() bool { return b.admin("SHOW VERSION") == nil })
	return b
}

// lead writes the configuration that leads to a server.
func (b *bouncer) lead(c *pgtest.Cluster) string {
	_, port, _ := strings.Cut(b.addr, ":")
	return b.file("pgbouncer.ini", fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = users
admin_users = postgres
pool_mode = %s
default_pool_size = %d
query_wait_timeout = 5
server_login_retry = 0.2
log_connections = 0
log_disconnections = 0
`, c.Port(), port, b.mode, map[string]int{"session": 30, "transaction": 3}[b.mode]))
}

// admin says something on PgBouncer's console.
func (b *bouncer) admin(command string) error {
	ctx := context.Background()
	c, err := pgx.Connect(ctx, "postgres://postgres@"+b.addr+"/pgbouncer?sslmode=disable&default_query_exec_mode=simple_protocol")
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, command)
	return err
}

func (b *bouncer) dsn(keys string) string {
	return "postgres://postgres@" + b.addr + "/postgres?sslmode=disable&" + keys
}

// bouncerModes are what goes together, as the documentation says.
var bouncerModes = []struct{ mode, keys string }{
	{"session", "base_driver=pgx"},
	{"session", "base_driver=pq"},
	{"transaction", "base_driver=pgx&default_query_exec_mode=exec"},
	{"transaction", "base_driver=pgx&default_query_exec_mode=simple_protocol"},
	{"transaction", "base_driver=pq&binary_parameters=yes"},
}

// Transactions that meet each other, in pool_mode=transaction on fewer server connections than there are clients.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	for _, m := range bouncerModes {
		c := pgtest.Start(t, pgtest.Conf("deadlock_timeout=10ms"))
		b := newBouncer(t, m.mode, c)
		for _, pool := range []string{"&pool_size=8", "&pool_size=none"} {
			t.Run(m.mode+"&"+m.keys+pool, func(t *testing.T) {
				ctx := context.Background()
				must(t, c.Exec("DROP TABLE IF EXISTS account", "CREATE TABLE account (id int PRIMARY KEY, n int)",
					"INSERT INTO account SELECT n, 100 FROM generate_series(1, 8) n"))
				db, managed := open(t, b.dsn(m.keys+pool))
				var workers sync.WaitGroup
				for worker := range 8 {
					workers.Go(func() {
						for i := range 25 {
							from, to := worker+1, (worker+i)%8+1
							err := managedpg.InTx(ctx, db, &managedpg.TxOptions{Retries: 100}, func(ctx context.Context, tx *sql.Tx) error {
								var n int
								if err := tx.QueryRowContext(ctx, "SELECT n FROM account WHERE id = $1 FOR UPDATE", from).Scan(&n); err != nil {
									return err
								}
								if _, err := tx.ExecContext(ctx, "UPDATE account SET n = $1 WHERE id = $2", n-1, from); err != nil {
									return err
								}
								_, err := tx.ExecContext(ctx, "UPDATE account SET n = n + 1 WHERE id = $1", to)
								return err
							})
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
				workers.Wait()
				var sum int
				must(t, db.QueryRowContext(ctx, "SELECT sum(n) FROM account WHERE id <> $1", 0).Scan(&sum))
				if sum != 800 {
					t.Errorf("the sum of all accounts is %d", sum)
				}
				if backends, err := c.Backends(); m.mode == "transaction" && backends > 3 || err != nil {
					t.Errorf("%d server connections, %v", backends, err)
				}
				if m.mode == "session" {
					inSession(t, db)
				}
				h := managed.CheckNow(ctx).Endpoints[0]
				if h.State != failover.Up || h.Role != failover.ReadWrite || h.Timeline != 1 || h.Note != "" {
					t.Errorf("health behind PgBouncer: %+v", h)
				}
			})
		}
	}
}

// inSession does what needs a server session of one's own: a prepared statement, and a setting.
func inSession(t *testing.T, db *sql.DB) {
	ctx := context.Background()
	stmt, err := db.PrepareContext(ctx, "SELECT n FROM account WHERE id = $1")
	must(t, err)
	defer stmt.Close()
	for id := 1; id <= 8; id++ {
		var n int
		must(t, stmt.QueryRowContext(ctx, id).Scan(&n))
	}
	c, err := db.Conn(ctx)
	must(t, err)
	defer c.Close()
	_, err = c.ExecContext(ctx, "SET statement_timeout = '1234ms'")
	must(t, err)
	var timeout string
	must(t, c.QueryRowContext(ctx, "SHOW statement_timeout").Scan(&timeout))
	if timeout != "1234ms" {
		t.Errorf("statement_timeout is %s", timeout)
	}
	_, err = c.ExecContext(ctx, "RESET statement_timeout")
	must(t, err)
}

// A PgBouncer before each of two servers: the primary dies, and the standby is promoted, which its PgBouncer has known as a
// standby.
func TestPgBouncerFailover(t *testing.T) {
	t.Parallel()
	for _, m := range bouncerModes {
		t.Run(m.mode+"&"+m.keys, func(t *testing.T) {
			primary, standby := pair(t)
			a, b := newBouncer(t, m.mode, primary), newBouncer(t, m.mode, standby)
			dsn := strings.Replace(a.dsn(m.keys), a.addr, a.addr+","+b.addr, 1)
			db, pool := open(t, dsn+"&pool_size=4&health_check_timeout=1s&connect_timeout=1s") // PgBouncer lets who asks wait for a dead server
			w := write(t, db)
			w.goesOn()
			if h := pool.CheckNow(context.Background()).Endpoints[1]; h.State != failover.Up || h.Role != failover.ReadOnly {
				t.Errorf("the standby: %+v", h)
			}
			must(t, primary.Kill())
			must(t, standby.Promote())
			w.goesOn()
			w.checkOn(standby)
			if s := pool.Failover(); s.FailoverCount != 1 || s.Current != b.addr+"/postgres" {
				t.Errorf("failed over %d times, to %s", s.FailoverCount, s.Current)
			}
		})
	}
}

// One PgBouncer, which is led to the promoted server: nothing to fail over to, and the same promises.
func TestPgBouncerLedElsewhere(t *testing.T) {
	t.Parallel()
	for _, m := range bouncerModes {
		t.Run(m.mode+"&"+m.keys, func(t *testing.T) {
			primary, standby := pair(t)
			b := newBouncer(t, m.mode, primary)
			db, _ := open(t, b.dsn(m.keys+"&pool_size=4"))
			w := write(t, db)
			w.goesOn()
			must(t, primary.Kill())
			must(t, standby.Promote())
			b.lead(standby)
			must(t, b.admin("RELOAD"))
			w.goesOn()
			w.checkOn(standby)
		})
	}
}
