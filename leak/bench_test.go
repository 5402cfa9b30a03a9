package leak_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/managedpg/managedpg/leak"
)

// The cost of a checkout and check-in in a stack of 40 frames of one recursive function, the best case for the runtime's
// caches.
func BenchmarkCheckOut(b *testing.B) {
	for _, depth := range []int{0, 8, 16, 32} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			t := leak.New(leak.Options{Threshold: time.Hour, StackDepth: depth})
			s := t.Slot(1, "localhost:5432/app", 1, nil)
			defer s.Remove()
			ctx := context.Background()
			b.ReportAllocs()
			nested(40, func() {
				for b.Loop() {
					s.CheckOut(ctx, 1)
					s.CheckIn(2)
				}
			})
		})
	}
}

func BenchmarkCheckIn(b *testing.B) {
	t := leak.New(leak.Options{})
	s := t.Slot(1, "localhost:5432/app", 1, nil)
	defer s.Remove()
	b.ReportAllocs()
	for b.Loop() {
		s.CheckIn(2)
	}
}

//go:noinline
func nested(depth int, f func()) int {
	if depth == 0 {
		f()
		return 0
	}
	return nested(depth-1, f) + 1
}

// What a call through database/sql costs with a driver that does nothing, and how much of it is tracking.
func BenchmarkThroughSQL(b *testing.B) {
	for _, depth := range []int{-1, 0, 8, 16, 32} {
		name := fmt.Sprintf("depth=%d", depth)
		if depth < 0 {
			name = "untracked"
		}
		b.Run(name, func(b *testing.B) {
			connector := &idleConnector{}
			if depth >= 0 {
				connector.tracker = leak.New(leak.Options{Threshold: time.Hour, StackDepth: depth})
			}
			db := sql.OpenDB(connector)
			defer db.Close()
			ctx := context.Background()
			b.ReportAllocs()
			nested(20, func() {
				for b.Loop() {
					if _, err := db.ExecContext(ctx, ""); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkScan(b *testing.B) {
	t := leak.New(leak.Options{Threshold: time.Hour, StackDepth: 16})
	slots := make([]*leak.Slot, 10_000)
	for i := range slots {
		slots[i] = t.Slot(uint64(i), "localhost:5432/app", 1, nil)
		slots[i].CheckOut(context.Background(), 1)
		defer slots[i].Remove()
	}
	cold := make([]byte, 32<<20)
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			t.Scan(2)
		}
	})
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			for i := 0; i < len(cold); i += 64 { // a cache line
				cold[i]++
			}
			b.StartTimer()
			t.Scan(2)
		}
	})
	runtime.KeepAlive(cold)
}

// What a pool's timeout error adds to an outage.
func BenchmarkLongest(b *testing.B) {
	t := leak.New(leak.Options{Threshold: time.Hour, StackDepth: 16})
	for i := range 15 {
		s := t.Slot(uint64(i), "localhost:5432/app", 1, nil)
		defer s.Remove()
		nested(20, func() { s.CheckOut(context.Background(), time.Duration(i)) })
	}
	b.ReportAllocs()
	for b.Loop() {
		t.Longest(3)
	}
}

// idleConnector is a driver whose calls do nothing but track the connection.
type idleConnector struct{ tracker *leak.Tracker }

func (c *idleConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn := &idleConn{}
	if c.tracker != nil {
		conn.slot = c.tracker.Slot(1, "localhost:5432/app", 1, nil)
		conn.slot.CheckOut(ctx, 1)
	}
	return conn, nil
}

func (c *idleConnector) Driver() driver.Driver { return nil }

type idleConn struct{ slot *leak.Slot }

func (c *idleConn) ResetSession(ctx context.Context) error {
	if c.slot != nil {
		c.slot.CheckOut(ctx, 1)
	}
	return nil
}

func (c *idleConn) IsValid() bool {
	if c.slot != nil {
		c.slot.CheckIn(2)
	}
	return true
}

func (c *idleConn) Close() error {
	if c.slot != nil {
		c.slot.Remove()
	}
	return nil
}

func (c *idleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, nil
}

func (c *idleConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (c *idleConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }

// BenchmarkWait is what a checkout pays that has to wait, so that the page can say who does.
func BenchmarkWait(b *testing.B) {
	t := leak.New(leak.Options{Pool: "app", StackDepth: 16})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		t.Wait(ctx)
	}
}
