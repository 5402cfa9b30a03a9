package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/stats"
)

// slowServer is a connector whose connections take their time to open and to close, and that knows how many there are.
type slowServer struct {
	mu              sync.Mutex
	open, most, all int
	down            bool
}

func (s *slowServer) Connect(ctx context.Context) (driver.Conn, error) {
	s.add(1)
	select {
	case <-time.After(time.Duration(1+rand.IntN(20)) * time.Millisecond):
	case <-ctx.Done():
	}
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if ctx.Err() != nil || down {
		s.add(-1)
		return nil, errors.Join(ctx.Err(), errors.New("refused"))
	}
	return &slowConn{server: s}, nil
}

func (s *slowServer) Driver() driver.Driver { return nil }

func (s *slowServer) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += n
	s.most = max(s.most, s.open)
	s.all += max(n, 0)
}

func (s *slowServer) count() (open, all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open, s.all
}

type slowConn struct {
	driver.Conn
	server *slowServer
}

func (c *slowConn) Close() error {
	<-time.After(time.Duration(rand.IntN(10)) * time.Millisecond)
	c.server.add(-1)
	return nil
}

// bubble runs f with a pool over a slowServer, in a time of its own that begins at 0.
func bubble(t *testing.T, opts Options, f func(t *testing.T, p *Pool, s *slowServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.Name, opts.Logger = "app", func() *slog.Logger { return slog.New(slog.DiscardHandler) }
		s := &slowServer{}
		p := New(opts, straight{base.Own("slow", s)})
		f(t, p, s)
		_ = p.Close()
		synctest.Wait()
		snap := figures(p)
		if open, _ := s.count(); open != 0 || snap.Open != 0 || snap.CheckedOut != 0 {
			t.Errorf("after Close: %d connections, the pool counts %d and %d checked out", open, snap.Open, snap.CheckedOut)
		}
	})
}

func figures(p *Pool) stats.Snapshot {
	s := stats.Snapshot{GovernedBy: stats.GovernedByDriver}
	p.Recorder.Fill(&s)
	return s
}

// Whatever opens and closes connections at the same time, there are never more than pool_size and max_overflow allow.
func TestNeverMoreThanTheLimit(t *testing.T) {
	for name, opts := range map[string]Options{
		"min_idle":          {Size: 5, MaxOverflow: 3, Timeout: -1, MinIdle: 5, IdleTimeout: 50 * time.Millisecond},
		"short lives":       {Size: 5, MaxOverflow: 3, Timeout: -1, MinIdle: 3, Recycle: 30 * time.Millisecond},
		"no overflow":       {Size: 4, Timeout: -1, MinIdle: 4, Recycle: 100 * time.Millisecond},
		"short of patience": {Size: 2, MaxOverflow: 2, Timeout: 5 * time.Millisecond, MinIdle: 2, Recycle: 50 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, opts, func(t *testing.T, p *Pool, s *slowServer) {
				var users sync.WaitGroup
				for i := range 32 {
					rng := rand.New(rand.NewPCG(7, uint64(i)))
					users.Go(func() {
						for range 100 {
							ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(100))*time.Millisecond)
							if c, err := p.Connect(ctx); err == nil {
								<-time.After(time.Duration(rng.IntN(5)) * time.Millisecond)
								if rng.IntN(10) == 0 {
									_ = c.Close() // without IsValid: it isn't kept
								} else {
									giveBack(c)
								}
							}
							cancel()
							if rng.IntN(20) == 0 {
								// Long enough for the tender to have its way.
								<-time.After(time.Duration(rng.IntN(200)) * time.Millisecond)
							}
							if rng.IntN(100) == 0 {
								p.Drain()
							}
						}
					})
				}
				users.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				if limit := opts.Size + opts.MaxOverflow; s.most > limit {
					t.Errorf("%d connections at once, want at most %d", s.most, limit)
				}
				if s.most < opts.Size {
					t.Errorf("at most %d connections at once: no storm", s.most)
				}
			})
		})
	}
}

// idlePeriod is how often the pool looks whether pool_min_idle are free.
const idlePeriod = time.Second

func TestMinIdle(t *testing.T) {
	bubble(t, Options{Size: 5, MaxOverflow: 5, Timeout: -1, MinIdle: 3}, func(t *testing.T, p *Pool, s *slowServer) {
		c := hold(t, p)
		<-time.After(idlePeriod)
		if open, _ := s.count(); open != 4 {
			t.Errorf("%d connections with one in use, want 3 beside it", open)
		}
		c2, c3 := hold(t, p), hold(t, p)
		<-time.After(2 * idlePeriod)
		if open, _ := s.count(); open != 5 {
			t.Errorf("%d connections with 3 in use, want no more than pool_size", open)
		}
		giveBack(c)
		giveBack(c2)
		giveBack(c3)
		<-time.After(2 * idlePeriod)
		if open, all := s.count(); open != 5 || all != 5 {
			t.Errorf("%d connections open, %d were opened; want the same 5 all the time", open, all)
		}
		p.Drain()
		<-time.After(2 * idlePeriod)
		if open, all := s.count(); open != 3 || all != 8 {
			t.Errorf("%d connections open, %d were opened; want 3 new ones after Drain", open, all)
		}
	})
}

// A server that refuses is asked again in idlePeriod, and not all the time.
func TestMinIdleOfServerThatIsDown(t *testing.T) {
	bubble(t, Options{Size: 5, Timeout: -1, MinIdle: 3}, func(t *testing.T, p *Pool, s *slowServer) {
		s.down = true
		if _, err := p.Connect(t.Context()); err == nil {
			t.Fatal("connected to a server that is down")
		}
		<-time.After(10 * idlePeriod)
		if _, all := s.count(); all > 25 {
			t.Errorf("dialled %d times in 10 periods", all)
		}
		s.mu.Lock()
		s.down = false
		s.mu.Unlock()
		<-time.After(2 * idlePeriod)
		if open, _ := s.count(); open != 3 {
			t.Errorf("%d connections, want 3 once the server is back", open)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	opts := Options{Size: 5, Timeout: -1, MinIdle: 2, IdleTimeout: time.Minute}
	bubble(t, opts, func(t *testing.T, p *Pool, s *slowServer) {
		var held []driver.Conn
		for range 5 {
			held = append(held, hold(t, p))
		}
		for _, c := range held {
			giveBack(c)
		}
		<-time.After(time.Minute - time.Second)
		if open, _ := s.count(); open != 5 {
			t.Errorf("%d connections before the time, want 5", open)
		}
		giveBack(hold(t, p)) // this one isn't idle
		<-time.After(30 * time.Second)
		if snap := figures(p); snap.Open != 2 || snap.ClosedBy[stats.ClosedIdle] != 3 {
			t.Errorf("%d connections, closed %v; want 2, and 3 closed as idle", snap.Open, snap.ClosedBy)
		}
	})
}

func TestRecycle(t *testing.T) {
	opts := Options{Size: 5, Timeout: -1, Recycle: time.Hour}
	bubble(t, opts, func(t *testing.T, p *Pool, s *slowServer) {
		held, free := hold(t, p), hold(t, p)
		giveBack(free)
		<-time.After(time.Hour - 6*time.Minute - time.Second)
		if snap := figures(p); snap.Open != 2 {
			t.Errorf("%d connections before the time, want 2", snap.Open)
		}
		<-time.After(7 * time.Minute)
		if snap := figures(p); snap.Open != 1 || snap.ClosedBy[stats.ClosedRecycle] != 1 {
			t.Errorf("%d connections, closed %v; want the free one closed", snap.Open, snap.ClosedBy)
		}
		giveBack(held)
		if snap := figures(p); snap.Open != 0 || snap.ClosedBy[stats.ClosedRecycle] != 2 {
			t.Errorf("%d connections, closed %v; want the other one closed at its check-in", snap.Open, snap.ClosedBy)
		}
	})
}

// The most recently used connection is lent first, so that the others can go idle.
func TestMostRecentlyUsedFirst(t *testing.T) {
	p := newFakePool(t, Options{Size: 3, Timeout: -1})
	a, b, c := hold(t, p), hold(t, p), hold(t, p)
	ids := func(c driver.Conn) uint64 { return c.(*Conn).phys.id }
	ida, idb := ids(a), ids(b)
	giveBack(a)
	giveBack(c)
	giveBack(b)
	for range 3 {
		c := hold(t, p)
		if id := ids(c); id != idb {
			t.Fatalf("connection %d is lent, want %d, which was used last", id, idb)
		}
		giveBack(c)
	}
	first, second, third := hold(t, p), hold(t, p), hold(t, p)
	if id := ids(third); id != ida {
		t.Errorf("connection %d is lent last, want %d", id, ida)
	}
	giveBack(first)
	giveBack(second)
	giveBack(third)
}
