package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/pool"
)

// silent are things of which those that were free don't answer, which takes a while to find out.
type silent struct {
	mu    sync.Mutex
	dials int
}

type line struct{ mute bool }

const patience = 5 * time.Second

func (s *silent) Dial(context.Context, time.Time) (*line, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	time.Sleep(10 * time.Millisecond)
	return &line{}, nil
}

func (s *silent) Ready(ctx context.Context, l *line, _ time.Duration) error {
	if !l.mute {
		return nil
	}
	select {
	case <-time.After(patience):
	case <-ctx.Done():
	}
	return fmt.Errorf("a ping: %w", pool.ErrSilent)
}

func (s *silent) Stale(*line, time.Duration) error    { return nil }
func (s *silent) Close(_ *line, _ error, done func()) { done() }

// After one that was free didn't answer nobody finds out about the others one after the other.
func TestSilentSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		things := &silent{}
		p := pool.New[*line](things, pool.Options{Size: 10, Timeout: -1, Now: func() time.Duration { return 0 }})
		defer p.Close()
		var held []*line
		for range 10 {
			l, _, _, err := p.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
		}
		for _, l := range held {
			l.mute = true
			p.Release(l, 0)
		}
		start := time.Now()
		l, _, fresh, err := p.Acquire(t.Context())
		if took := time.Since(start); err != nil || !fresh || took > patience+time.Second {
			t.Errorf("after %v: fresh %v, %v; want a new one once one ping was not answered", took, fresh, err)
		}
		p.Release(l, 0)
		time.Sleep(2 * patience) // the others are found out in the background
		if n := p.Places(); n != 1 {
			t.Errorf("%d are left, want the one that answers", n)
		}
	})
}

// A panic in Ready goes on to its caller, and costs no place.
type panicking struct{ silent }

func (p *panicking) Ready(context.Context, *line, time.Duration) error { panic("no") }

func TestPanicInReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*line](&panicking{}, pool.Options{Size: 1, Timeout: -1, Now: func() time.Duration { return 0 }})
		defer p.Close()
		l, _, _, err := p.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		p.Release(l, 0)
		func() {
			defer func() {
				if recover() != "no" {
					t.Error("the panic didn't go on")
				}
			}()
			_, _, _, _ = p.Acquire(t.Context())
		}()
		if _, _, fresh, err := p.Acquire(t.Context()); err != nil || !fresh {
			t.Errorf("fresh %v, %v", fresh, err)
		}
	})
}

// A dial goes on without its caller, and the next one has what it brings: opening takes longer than any call may.
func TestADialOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, limit: -1, dialTime: 150 * time.Millisecond, random: nil}
		things := slow{w}
		p := pool.New[*thing](things, pool.Options{OrphanTimeout: 5 * time.Second, MaxOverflow: -1, Timeout: -1, Now: w.now})
		defer p.Close()
		for n := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_, _, _, err := p.Acquire(ctx)
			cancel()
			if want := n > 0; (err == nil) != want {
				t.Errorf("call %d: %v", n, err)
			}
			if err == nil {
				p.Detach()
				return
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("call %d: %v", n, err)
			}
		}
	})
}

// slow dials in 150 ms, and never fails.
type slow struct{ *world }

func (s slow) Dial(ctx context.Context, _ time.Time) (*thing, error) {
	select {
	case <-after(s.dialTime):
		return &thing{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A thing that refuses is asked 50 times a second at most, whatever the number of callers, and they are told at once.
func TestFailedDialsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &refusing{}
		p := pool.New[*line](w, pool.Options{Size: 8, Timeout: -1, Now: func() time.Duration { return 0 }})
		defer p.Close()
		var callers sync.WaitGroup
		for range 100 {
			callers.Go(func() {
				for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
					if _, _, _, err := p.Acquire(t.Context()); !errors.Is(err, errDial) {
						t.Errorf("told %v", err)
						return
					}
				}
			})
		}
		callers.Wait()
		if w.dials > 110 || w.dials < 40 {
			t.Errorf("%d dials in 2 s", w.dials)
		}
	})
}

type refusing struct{ silent }

func (r *refusing) Dial(context.Context, time.Time) (*line, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials++
	return nil, errDial
}

// slowToFail are things whose dials take long and fail, as where no server can be used.
type slowToFail struct {
	silent
	first bool // the first one succeeds
}

const failing = 30 * time.Second

func (s *slowToFail) Dial(ctx context.Context, _ time.Time) (*line, error) {
	if s.first {
		s.first = false
		return &line{}, nil
	}
	select {
	case <-after(failing):
		return nil, errNoServer
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errNoServer = errors.New("no server")

// Dials that fail slowly, and those that are begun beside them, keep nobody waiting for longer than one takes.
func TestSlowFailuresAreTold(t *testing.T) {
	for _, timeout := range []time.Duration{-1, failing, time.Hour} {
		for _, callers := range []int{1, 5} {
			t.Run(fmt.Sprint(timeout, callers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					things := &slowToFail{first: timeout == failing} // one is held, and may be given back
					p := pool.New[*line](things, pool.Options{Size: 3, MaxOverflow: -1, Timeout: timeout, Now: func() time.Duration { return 0 }})
					defer p.Close()
					if things.first {
						if _, _, _, err := p.Acquire(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					var calls sync.WaitGroup
					for range callers {
						calls.Go(func() {
							start := time.Now()
							_, _, _, err := p.Acquire(context.Background())
							if took := time.Since(start); err == nil || took > failing+2*time.Second {
								t.Errorf("after %v: %v", took, err)
							}
						})
					}
					calls.Wait()
				})
			})
		}
	}
}

// There is room where one is free or may be dialled for whoever comes next, and nobody is before them.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*line](&silent{}, pool.Options{Size: 1, MaxOverflow: 1, Timeout: -1, Now: func() time.Duration { return 0 }})
		defer p.Close()
		want := func(when string, room bool) {
			t.Helper()
			if p.Room() != room {
				t.Errorf("%s: room %v", when, !room)
			}
		}
		want("empty", true)
		var held []*line
		for range 2 {
			l, _, _, err := p.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
			want("in use", len(held) < 2)
		}
		p.Release(held[0], 0)
		want("one is free", true)
		p.Pause()
		want("paused", false)
		p.Resume()
		p.Resize(0, 1)
		want("none is free, and there are as many as may be", false)
		p.Release(held[1], 0)
	})
}
