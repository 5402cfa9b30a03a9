package conn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
)

// TestOlderConnectionIsNobodyElses borrows connections while others use the pool, take them up and close them.
func TestOlderConnectionIsNobodyElses(t *testing.T) {
	for name, opts := range map[string]Options{
		"database/sql governs": {},
		"the driver governs":   {Size: 3, MaxOverflow: 1, Timeout: -1},
	} {
		t.Run(name, func(t *testing.T) {
			var server soleBase
			opts.Name = "app"
			opts.Logger = func() *slog.Logger { return slog.New(slog.DiscardHandler) }
			opts.PrePing = true
			p := New(opts, straight{base.Own("nowhere", &server)})
			db := sql.OpenDB(poolConnector{p})
			if opts.Size == 0 {
				db.SetMaxIdleConns(2)
				db.SetConnMaxIdleTime(2 * time.Millisecond)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var users sync.WaitGroup
			for range 6 {
				users.Go(func() {
					for ctx.Err() == nil {
						if _, err := db.ExecContext(t.Context(), ""); err != nil {
							t.Error(err)
							return
						}
						time.Sleep(time.Millisecond)
					}
				})
			}
			for borrowed := 0; ctx.Err() == nil; {
				lent, _ := p.older(0, clock.Now(), nil)
				if lent == nil {
					continue
				}
				lent.Raw().(*soleConn).use()
				lent.GiveBack()
				if borrowed++; borrowed == 100 {
					cancel()
				}
			}
			if context.Cause(ctx) != context.Canceled {
				t.Error("not often enough was one to be had")
			}
			users.Wait()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			if n := server.shared.Load(); n > 0 {
				t.Errorf("%d times somebody else used it", n)
			}
			if n := server.open.Load(); n != 0 {
				t.Errorf("%d connections are left", n)
			}
			if open, inUse := p.Recorder.Now(); open != 0 || inUse != 0 {
				t.Errorf("%d open, %d in use", open, inUse)
			}
		})
	}
}

// TestClosedWhileLent: database/sql closes a connection that is borrowed.
func TestClosedWhileLent(t *testing.T) {
	var server soleBase
	p := New(Options{Name: "app"}, straight{base.Own("nowhere", &server)})
	db := sql.OpenDB(poolConnector{p})
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	lent, _ := p.older(0, clock.Now(), nil)
	if lent == nil {
		t.Fatal("nothing was to be had")
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if n := server.open.Load(); n != 1 {
		t.Errorf("%d are open, while one is lent", n)
	}
	lent.GiveBack()
	if n := server.open.Load(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

type poolConnector struct{ *Pool }

func (poolConnector) Driver() driver.Driver { return nil }

// soleBase is a base whose connections notice that two use them at once.
type soleBase struct {
	open, shared atomic.Int64
}

func (b *soleBase) Connect(context.Context) (driver.Conn, error) {
	b.open.Add(1)
	return &soleConn{base: b}, nil
}

func (*soleBase) Driver() driver.Driver { return nil }

type soleConn struct {
	driver.Conn
	base *soleBase
	busy atomic.Bool
}

func (c *soleConn) use() {
	if !c.busy.CompareAndSwap(false, true) {
		c.base.shared.Add(1)
		return
	}
	time.Sleep(50 * time.Microsecond)
	c.busy.Store(false)
}

func (c *soleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	c.use()
	return driver.RowsAffected(0), nil
}

func (c *soleConn) Ping(context.Context) error         { c.use(); return nil }
func (c *soleConn) ResetSession(context.Context) error { c.use(); return nil }

func (c *soleConn) Close() error {
	c.use()
	c.base.open.Add(-1)
	return nil
}
