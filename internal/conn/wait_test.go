package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/evidence"
)

// newFakePool is a governed pool over connections that lead nowhere. It is closed with the test, or its bubble.
func newFakePool(t *testing.T, opts Options) *Pool {
	opts.Name = "app"
	opts.Logger = func() *slog.Logger { return slog.New(slog.DiscardHandler) }
	p := New(opts, straight{base.Own("nowhere", fakeConnector{})})
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// straight is a Router with a single endpoint.
type straight struct{ endpoint *base.Endpoint }

func (s straight) Connect(ctx context.Context, _ time.Time, open func(context.Context, Route) error) error {
	return open(ctx, Route{Endpoint: s.endpoint, Signals: new(evidence.Signals)})
}
func (straight) Admit(context.Context, base.Server) error { return nil }
func (straight) Fenced(base.Server) error                 { return nil }
func (straight) CallFailed(int, error)                    {}
func (straight) Unreached(error, time.Duration) error     { return nil }

type fakeConnector struct{}

func (fakeConnector) Connect(context.Context) (driver.Conn, error) { return fakeConn{}, nil }
func (fakeConnector) Driver() driver.Driver                        { return nil }

type fakeConn struct{ driver.Conn }

func (fakeConn) Close() error { return nil }

// hold checks a connection out that must be there at once.
func hold(t *testing.T, p *Pool) driver.Conn {
	t.Helper()
	c, err := p.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// giveBack returns a connection as database/sql does.
func giveBack(c driver.Conn) {
	c.(driver.Validator).IsValid()
	_ = c.Close()
}

// wait checks out on another goroutine, and returns when that waits in the queue or has its answer.
func wait(ctx context.Context, p *Pool) *waiter {
	w := &waiter{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.conn, w.err = p.Connect(ctx)
	}()
	synctest.Wait()
	return w
}

type waiter struct {
	done chan struct{}
	conn driver.Conn
	err  error
}

func (w *waiter) waits() bool {
	synctest.Wait()
	select {
	case <-w.done:
		return false
	default:
		return true
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, Options{Size: 1, Timeout: -1})
		c := hold(t, p)
		var queue []*waiter
		for range 20 {
			queue = append(queue, wait(t.Context(), p))
		}
		for i, w := range queue {
			giveBack(c)
			if w.waits() || w.err != nil {
				t.Fatalf("waiter %d isn't served: %v", i, w.err)
			}
			for j, later := range queue[i+1:] {
				if !later.waits() {
					t.Fatalf("waiter %d overtook waiter %d", i+1+j, i)
				}
			}
			c = w.conn
		}
		giveBack(c)
	})
}

// Whoever comes when somebody waits queues up behind, even in the moment when a connection has come back.
func TestNobodyOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, Options{Size: 1, Timeout: -1})
		for range 200 {
			c := hold(t, p)
			first := wait(t.Context(), p)
			var late sync.WaitGroup
			for range 2 {
				late.Go(func() {
					c := hold(t, p)
					select {
					case <-first.done:
					default:
						t.Error("served before who waited already")
					}
					giveBack(c)
				})
			}
			go giveBack(c)
			<-first.done
			giveBack(first.conn)
			late.Wait()
		}
	})
}

func TestWaiterLeavesWithItsContext(t *testing.T) {
	for name, end := range map[string]func(context.Context, context.CancelFunc){
		"cancelled": func(_ context.Context, cancel context.CancelFunc) { cancel() },
		"deadline":  func(ctx context.Context, _ context.CancelFunc) { <-ctx.Done() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFakePool(t, Options{Size: 1, Timeout: -1})
				c := hold(t, p)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				first, second := wait(ctx, p), wait(t.Context(), p)
				start := time.Now()
				end(ctx, cancel)
				if first.waits() {
					t.Fatal("a waiter stays in the queue after its context has ended")
				}
				if !errors.Is(first.err, ctx.Err()) {
					t.Errorf("it gets %v, want %v", first.err, ctx.Err())
				}
				if errors.Is(first.err, ErrPoolTimeout) {
					t.Errorf("%v is ErrPoolTimeout, though pool_timeout had no part in it", first.err)
				}
				want := fmt.Sprintf(`managedpg: pool "app": no connection within %v, %v (1 open, 1 in use, 1 waiting)`,
					time.Since(start), ctx.Err())
				if first.err.Error() != want {
					t.Errorf("it says %s\nwant    %s", first.err, want)
				}
				giveBack(c)
				if second.waits() || second.err != nil {
					t.Fatalf("the connection didn't go to the next in the queue: %v", second.err)
				}
				giveBack(second.conn)
			})
		})
	}
}

func TestPoolTimeout(t *testing.T) {
	for _, test := range []struct {
		name        string
		timeout     time.Duration
		deadline    time.Duration
		want        error
		after       time.Duration
		text        string
		stillQueued int
	}{
		{name: "ends the wait", timeout: 30 * time.Second, want: ErrPoolTimeout, after: 30 * time.Second,
			text: `managedpg: pool "app": no connection within 30s (3 open, 3 in use, 0 waiting)`},
		{name: "tells of the others in the queue", timeout: 1500 * time.Millisecond, want: ErrPoolTimeout, after: 1500 * time.Millisecond,
			text: `managedpg: pool "app": no connection within 1.5s (3 open, 3 in use, 2 waiting)`, stillQueued: 2},
		{name: "0 fails at once", timeout: 0, want: ErrPoolTimeout,
			text: `managedpg: pool "app": no connection within 0s (3 open, 3 in use, 0 waiting)`},
		{name: "the context is sooner", timeout: 30 * time.Second, deadline: time.Second, want: context.DeadlineExceeded, after: time.Second,
			text: `managedpg: pool "app": no connection within 1s, context deadline exceeded (3 open, 3 in use, 0 waiting)`},
		{name: "negative: only the context", timeout: -1, deadline: time.Hour, want: context.DeadlineExceeded, after: time.Hour,
			text: `managedpg: pool "app": no connection within 1h0m0s, context deadline exceeded (3 open, 3 in use, 0 waiting)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newFakePool(t, Options{Size: 2, MaxOverflow: 1, Timeout: test.timeout})
				held := []driver.Conn{hold(t, p), hold(t, p), hold(t, p)}
				ctx, cancel := t.Context(), func() {}
				if test.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
				}
				defer cancel()
				start := time.Now()
				w := wait(ctx, p)
				if test.stillQueued > 0 {
					<-time.After(time.Millisecond) // the others come later
				}
				for range test.stillQueued {
					wait(t.Context(), p)
				}
				<-w.done
				if !errors.Is(w.err, test.want) {
					t.Errorf("got %v, want %v", w.err, test.want)
				}
				if w.err.Error() != test.text {
					t.Errorf("got  %s\nwant %s", w.err, test.text)
				}
				if took := time.Since(start); took != test.after {
					t.Errorf("after %v, want %v", took, test.after)
				}
				var detail *PoolTimeoutError
				if !errors.As(w.err, &detail) || detail.Waited != test.after || detail.InUse != 3 {
					t.Errorf("detail: %+v", detail)
				}
				synctest.Wait()
				for _, c := range held {
					giveBack(c)
				}
			})
		})
	}
}

// Who waits when the pool is closed is told so, and doesn't wait for its time to pass.
func TestCloseWakesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFakePool(t, Options{Size: 1, Timeout: time.Hour})
		c := hold(t, p)
		first, second := wait(t.Context(), p), wait(t.Context(), p)
		start := time.Now()
		_ = p.Close()
		<-first.done
		<-second.done
		if !errors.Is(first.err, ErrClosed) || !errors.Is(second.err, ErrClosed) || time.Since(start) > 0 {
			t.Errorf("after %v: %v, %v; want ErrClosed at once", time.Since(start), first.err, second.err)
		}
		if _, err := p.Connect(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("a checkout after Close: %v, want ErrClosed", err)
		}
		giveBack(c)
		if open, out := p.Recorder.Now(); open != 0 || out != 0 || p.lending.Figures().Waiting != 0 {
			t.Errorf("%d open, %d checked out after the last one was given back", open, out)
		}
	})
}

// Contexts that end at the very moment when a connection comes cost no connection, and nobody is left waiting.
func TestCancellationsCostNoConnection(t *testing.T) {
	const size = 2
	p := newFakePool(t, Options{Size: size, Timeout: -1})
	var users sync.WaitGroup
	for i := range 16 {
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		users.Go(func() {
			for range 200 {
				ctx, cancel := context.WithCancel(t.Context())
				spin := rng.IntN(50)
				go func() { // cancelled about when it is served
					for range spin {
						_ = ctx.Err()
					}
					cancel()
				}()
				if c, err := p.Connect(ctx); err == nil {
					giveBack(c)
				}
				cancel()
			}
		})
	}
	users.Wait()
	var held []driver.Conn
	for range size {
		held = append(held, hold(t, p))
	}
	for _, c := range slices.Backward(held) {
		giveBack(c)
	}
	if open, out := p.Recorder.Now(); open > size || out != 0 || p.lending.Figures().Waiting != 0 {
		t.Errorf("%d open, %d checked out", open, out)
	}
}

// A panic in OnConnect is an error, as it happens on a goroutine of the pool's, and costs it no place.
func TestPanicInADialLeavesThePoolWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		angry := true
		p := newFakePool(t, Options{Size: 1, OnConnect: func(context.Context, driver.Conn) error {
			if angry {
				panic("no")
			}
			return nil
		}})
		for range 3 {
			if _, err := p.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "panic: no") {
				t.Errorf("the caller is told %v", err)
			}
			time.Sleep(time.Second)
		}
		angry = false
		giveBack(hold(t, p))
		if open, _ := p.Recorder.Now(); open != 1 {
			t.Errorf("%d connections are open", open)
		}
	})
}
