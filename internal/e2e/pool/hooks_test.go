package pool_test

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// hook is a place where code of the user's runs while a connection is made.
type hook struct {
	name string
	set  func(c *managedpg.Config, f func(context.Context) error)
	bare func(dsn string, f func(context.Context) error) *sql.DB // nil: the bare driver has no such place
	pq   bool                                                    // lib/pq has it too
}

func bareWith(change func(*pgx.ConnConfig), opts ...stdlib.OptionOpenDB) func(dsn string) *sql.DB {
	return func(dsn string) *sql.DB {
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			panic(err)
		}
		change(cfg)
		return stdlib.OpenDB(*cfg, opts...)
	}
}

func hooks() []hook {
	before := func(f func(context.Context) error) stdlib.OptionOpenDB {
		return stdlib.OptionBeforeConnect(func(ctx context.Context, _ *pgx.ConnConfig) error { return f(ctx) })
	}
	after := func(f func(context.Context) error) stdlib.OptionOpenDB {
		return stdlib.OptionAfterConnect(func(ctx context.Context, _ *pgx.Conn) error { return f(ctx) })
	}
	option := func(of func(func(context.Context) error) stdlib.OptionOpenDB) (set func(*managedpg.Config, func(context.Context) error), bare func(string, func(context.Context) error) *sql.DB) {
		return func(c *managedpg.Config, f func(context.Context) error) { c.PgxOptions = append(c.PgxOptions, of(f)) },
			func(dsn string, f func(context.Context) error) *sql.DB {
				return bareWith(func(*pgx.ConnConfig) {}, of(f))(dsn)
			}
	}
	config := func(of func(*pgx.ConnConfig, func(context.Context) error)) (set func(*managedpg.Config, func(context.Context) error), bare func(string, func(context.Context) error) *sql.DB) {
		return func(c *managedpg.Config, f func(context.Context) error) {
				c.PgxConfig = func(c *pgx.ConnConfig) error { of(c, f); return nil }
			},
			func(dsn string, f func(context.Context) error) *sql.DB {
				return bareWith(func(c *pgx.ConnConfig) { of(c, f) })(dsn)
			}
	}
	all := []hook{{name: "OptionBeforeConnect"}, {name: "OptionAfterConnect"}, {name: "AfterConnect"}, {name: "ValidateConnect"}, {name: "OnConnect", pq: true}}
	all[0].set, all[0].bare = option(before)
	all[1].set, all[1].bare = option(after)
	all[2].set, all[2].bare = config(func(c *pgx.ConnConfig, f func(context.Context) error) {
		c.AfterConnect = func(ctx context.Context, _ *pgconn.PgConn) error { return f(ctx) }
	})
	all[3].set, all[3].bare = config(func(c *pgx.ConnConfig, f func(context.Context) error) {
		c.ValidateConnect = func(ctx context.Context, _ *pgconn.PgConn) error { return f(ctx) }
	})
	all[4].set = func(c *managedpg.Config, f func(context.Context) error) {
		c.OnConnect = func(ctx context.Context, _ driver.Conn) error { return f(ctx) }
	}
	return all
}

// eachHook runs a test for each place, with each combination that has it.
func eachHook(t *testing.T, test func(t *testing.T, h hook, open func(dsn string, f func(context.Context) error, change ...func(*managedpg.Config)) *sql.DB)) {
	for _, h := range hooks() {
		for _, c := range rig.Combinations {
			if c.Base == "pq" && !h.pq {
				continue
			}
			t.Run(h.name+"/"+c.String(), func(t *testing.T) {
				t.Parallel()
				test(t, h, func(dsn string, f func(context.Context) error, change ...func(*managedpg.Config)) *sql.DB {
					return rig.OpenConfig(t, c.DSN(dsn), func(c *managedpg.Config) {
						h.set(c, f)
						for _, more := range change {
							more(c)
						}
					})
				})
			})
		}
	}
}

// connect_timeout is the server's: a hook of the user's may take longer, and the endpoint is none the worse for it.
func TestHookTakesLongerThanConnectTimeout(t *testing.T) {
	const connectTimeout = time.Second
	eachHook(t, func(t *testing.T, h hook, open func(string, func(context.Context) error, ...func(*managedpg.Config)) *sql.DB) {
		slow := func(ctx context.Context) error {
			select {
			case <-time.After(connectTimeout + connectTimeout/2):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		dsn := pgtest.Database(t)
		db := open(dsn, slow, func(c *managedpg.Config) {
			c.ConnectTimeout, c.HealthCheckTimeout = connectTimeout, connectTimeout
			c.FailoverURLs = []string{dsn}
			c.HealthCheckInterval = time.Minute
		})
		rig.Exec(t, db, "SELECT 1")
		h2 := rig.PoolOf(t, db).CheckNow(t.Context())
		for _, e := range h2.Endpoints {
			if e.State != failover.Up || e.FailedChecks != 0 {
				t.Errorf("%s is %s, with %d failed checks: %v", e.Endpoint, e.State, e.FailedChecks, e.LastError)
			}
		}
		if s := rig.PoolOf(t, db).Failover(); s.FailoverCount != 0 {
			t.Errorf("failed over: %+v", s)
		}
	})
}

// What a hook returns comes back at once, as the bare driver has it, and says nothing of the server.
func TestHookFails(t *testing.T) {
	errHook := &net.OpError{Op: "dial", Err: errors.New("no token")} // as a lost server's would look
	eachHook(t, func(t *testing.T, h hook, open func(string, func(context.Context) error, ...func(*managedpg.Config)) *sql.DB) {
		dsn := pgtest.Database(t)
		fail := func(context.Context) error { return errHook }
		same := true
		if h.bare != nil {
			bare := h.bare(dsn, fail)
			defer bare.Close()
			same = bare.PingContext(t.Context()) == error(errHook)
		}
		for _, several := range []bool{false, true} {
			db := open(dsn, fail, func(c *managedpg.Config) {
				c.FailoverTimeout = time.Second // ValidateConnect turns each server down
				c.HealthCheckInterval = time.Minute
				if several {
					c.FailoverURLs = []string{dsn}
				}
			})
			err := db.PingContext(t.Context())
			if !errors.Is(err, errHook) || same && err != error(errHook) {
				t.Errorf("several=%v: got %v (%T)", several, err, err)
			}
			for _, e := range rig.PoolOf(t, db).Health().Endpoints {
				if e.State == failover.Down || e.State == failover.Suspect || e.State == failover.Misconfigured {
					t.Errorf("several=%v: %s is %s", several, e.Endpoint, e.State)
				}
			}
		}
	})
}

// A hook keeps its caller no longer than its context lasts, and db.Close ends it; the next caller isn't left to wait for it.
func TestHookEndsWithItsCallerAndWithClose(t *testing.T) {
	eachHook(t, func(t *testing.T, h hook, open func(string, func(context.Context) error, ...func(*managedpg.Config)) *sql.DB) {
		var entered atomic.Int64
		db := open(pgtest.Database(t), func(ctx context.Context) error {
			entered.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}, func(c *managedpg.Config) { c.HealthCheck = false })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- db.PingContext(ctx) }()
		rig.Eventually(t, "the hook runs", func() bool { return entered.Load() > 0 })
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		before := entered.Load()
		go func() { ended <- db.PingContext(t.Context()) }()
		rig.Eventually(t, "the hook runs", func() bool { return entered.Load() > before })
		db.Close()
		if err := <-ended; err == nil {
			t.Error("closed, and no error")
		}
	})
}

// A probe runs what it takes to get in, the user's credentials among it, and nothing that is meant for the user's connections.
func TestProbesRunNoHooks(t *testing.T) {
	eachHook(t, func(t *testing.T, h hook, open func(string, func(context.Context) error, ...func(*managedpg.Config)) *sql.DB) {
		var calls atomic.Int64
		db := open(pgtest.Database(t), func(context.Context) error { calls.Add(1); return nil })
		for range 3 {
			if h := rig.PoolOf(t, db).CheckNow(t.Context()); !h.Healthy {
				t.Errorf("%+v", h)
			}
		}
		switch n := calls.Load(); {
		case h.name == "OptionBeforeConnect" && n < 3:
			t.Errorf("called %d times", n)
		case h.name != "OptionBeforeConnect" && n > 0:
			t.Errorf("called %d times", n)
		}
	})
}

// The bare driver calls each hook once for each connection. (pgx's own TestOptionBeforeAfterConnect, as a user would write it.)
func TestHooksRunOncePerConnection(t *testing.T) {
	for _, governed := range []bool{false, true} {
		var before []*pgx.ConnConfig // without a lock: nobody else calls them
		var after []*pgx.Conn
		db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
			if governed {
				c.PoolSize = 1
			}
			c.PgxOptions = []stdlib.OptionOpenDB{
				stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error { before = append(before, c); return nil }),
				stdlib.OptionAfterConnect(func(_ context.Context, c *pgx.Conn) error { after = append(after, c); return nil }),
			}
		})
		for range 2 {
			rig.Exec(t, db, "SELECT 1")
			rig.PoolOf(t, db).Drain()
		}
		if len(before) != 2 || len(after) != 2 {
			t.Errorf("governed=%v: %d before and %d after, want 2 of each", governed, len(before), len(after))
		}
	}
}

// lockedBuffer is a log that several goroutines write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Code of the user's that needs its caller's context value panics on a goroutine of ours, which has none. That ends no program.
func TestPanicInAProbe(t *testing.T) {
	type callerKey struct{}
	needsCaller := func(ctx context.Context) { _ = ctx.Value(callerKey{}).(string) }
	dialer := &net.Dialer{}
	for name, set := range map[string]func(*managedpg.Config){
		"OptionBeforeConnect": func(c *managedpg.Config) {
			c.PgxOptions = []stdlib.OptionOpenDB{stdlib.OptionBeforeConnect(func(ctx context.Context, _ *pgx.ConnConfig) error { needsCaller(ctx); return nil })}
		},
		"DialFunc": func(c *managedpg.Config) {
			c.PgxConfig = func(c *pgx.ConnConfig) error {
				c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					needsCaller(ctx)
					return dialer.DialContext(ctx, network, addr)
				}
				return nil
			}
		},
		"LookupFunc": func(c *managedpg.Config) {
			c.PgxConfig = func(c *pgx.ConnConfig) error {
				c.LookupFunc = func(ctx context.Context, host string) ([]string, error) { needsCaller(ctx); return []string{host}, nil }
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := &lockedBuffer{}
			db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
				set(c)
				c.Logger = slog.New(slog.NewTextHandler(log, nil))
			})
			ctx := context.WithValue(t.Context(), callerKey{}, "me")
			if err := db.PingContext(ctx); err != nil {
				t.Fatal(err)
			}
			rig.Eventually(t, "the panic is in the log", func() bool {
				rig.PoolOf(t, db).CheckNow(t.Context())
				return strings.Contains(log.String(), "managedpg: panic in a probe") && strings.Contains(log.String(), "hooks_test.go")
			})
			if state := rig.PoolOf(t, db).Health().Endpoints[0].State; state != failover.Up {
				t.Errorf("the endpoint is %s", state)
			}
			if _, err := db.ExecContext(ctx, "SELECT 1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// DISCARD ALL would undo what AfterConnect has set, a role for one: such a connection is for one user.
func TestDiscardAllKeepsWhatAfterConnectSet(t *testing.T) {
	for name, set := range map[string]func(c *managedpg.Config, query string){
		"OptionAfterConnect": func(c *managedpg.Config, query string) {
			c.PgxOptions = []stdlib.OptionOpenDB{stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
				_, err := c.Exec(ctx, query)
				return err
			})}
		},
		"AfterConnect": func(c *managedpg.Config, query string) {
			c.PgxConfig = func(c *pgx.ConnConfig) error {
				c.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error { return c.Exec(ctx, query).Close() }
				return nil
			}
		},
		"OnConnect": func(c *managedpg.Config, query string) {
			c.OnConnect = func(ctx context.Context, c driver.Conn) error {
				_, err := c.(driver.ExecerContext).ExecContext(ctx, query, nil)
				return err
			}
		},
	} {
		for _, size := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s,pool_size=%d", name, size), func(t *testing.T) {
				db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
					c.PoolSize, c.MaxOverflow, c.PoolReset = size, 0, "discard_all"
					set(c, "SET ROLE pg_monitor")
				})
				for range 3 {
					if role := rig.Value[string](t, db, "SELECT current_user"); role != "pg_monitor" {
						t.Errorf("the role is %s", role)
					}
				}
				want := int64(3)
				if name == "OnConnect" {
					want = 1 // it is run again
				}
				if n := rig.PoolOf(t, db).Stats().TotalConnectionsCreated; n != want {
					t.Errorf("%d connections, want %d", n, want)
				}
			})
		}
	}
}

// The same where connections are opened ahead, and with a log handler that panics too.
func TestPanicAhead(t *testing.T) {
	type callerKey struct{}
	log := &lockedBuffer{}
	db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
		c.PoolSize, c.PoolMinIdle = 2, 2
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
		c.OnConnect = func(ctx context.Context, _ driver.Conn) error { _ = ctx.Value(callerKey{}).(string); return nil }
	})
	ctx := context.WithValue(t.Context(), callerKey{}, "me")
	if err := db.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, "the panic is in the log", func() bool {
		return strings.Contains(log.String(), "managedpg: panic in a dial") && strings.Contains(log.String(), "hooks_test.go")
	})
	if err := db.PingContext(ctx); err != nil {
		t.Error(err)
	}
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Handle(context.Context, slog.Record) error { panic("no") }

func TestPanicInALogHandler(t *testing.T) {
	db := rig.OpenConfig(t, pgtest.Database(t), func(c *managedpg.Config) {
		c.PoolSize, c.PoolMinIdle, c.EchoPool, c.LeakThreshold = 2, 2, true, time.Millisecond
		c.Logger = slog.New(panickingHandler{slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug})})
	})
	conn, err := db.Conn(t.Context())
	rig.NoError(t, err)
	defer conn.Close()
	rig.Eventually(t, "a leak is reported, and a connection opened ahead", func() bool {
		s := rig.PoolOf(t, db).Stats()
		return s.TotalLeaks == 1 && s.Open == 2
	})
	rig.Exec(t, conn, "SELECT 1")
}
