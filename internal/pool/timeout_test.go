package pool_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/pool"
)

// What a dial has met that was begun before one that has succeeded isn't told whom the pool's timeout ends.
func TestTimeoutBesideAnOldDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := pool.New[*line](&told{next: func() (time.Duration, error) {
			if n++; n == 1 {
				return 5 * time.Second, errors.New("timeout of an outage")
			}
			return time.Millisecond, nil
		}}, pool.Options{Size: 2, Timeout: 3 * time.Second, Now: func() time.Duration { return 0 }})
		defer p.Close()
		var calls sync.WaitGroup
		for range 3 {
			calls.Go(func() {
				if _, _, _, err := p.Acquire(t.Context()); err != nil && err != pool.ErrTimeout {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		calls.Wait()
	})
}

// Without a limit, who has a dial under way isn't dismissed for who has none.
func TestTimeoutSparesWhoDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		opts := pool.Options{Size: 1, MaxOverflow: -1, Timeout: time.Second, Now: func() time.Duration { return 0 }}
		p := pool.New[*line](&told{next: func() (time.Duration, error) {
			switch n++; n {
			case 1:
				return 0, nil
			case 2:
				return 10 * time.Millisecond, errRefused
			default:
				return 3 * time.Second, nil
			}
		}}, opts)
		defer p.Close()
		held, _, _, err := p.Acquire(t.Context()) // that could be given back, so the first dial that fails is no reason to give up
		if err != nil {
			t.Fatal(err)
		}
		defer func() { p.Release(held, 0) }()
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { _, _, _, err := p.Acquire(t.Context()); first <- err }()
		synctest.Wait()
		go func() { _, _, _, err := p.Acquire(t.Context()); second <- err }()
		if err := <-second; err != nil {
			t.Errorf("who had a dial under way was told %v", err)
		}
		if err := <-first; err != nil && !errors.Is(err, pool.ErrTimeout) {
			t.Error(err)
		}
	})
}

// Without a limit, who has hoped for another's dial until that was slow has a dial of its own then, though the pool's timeout has passed.
func TestTimeoutBesideASlowDial(t *testing.T) {
	for _, timeout := range []time.Duration{0, 200 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := pool.New[*line](&slowly{takes: 1200 * time.Millisecond},
				pool.Options{MaxOverflow: -1, Timeout: timeout, Now: func() time.Duration { return 0 }})
			defer p.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, _, _, err := p.Acquire(ctx); err != context.DeadlineExceeded {
				t.Error(err)
			}
			var calls sync.WaitGroup
			for range 2 {
				calls.Go(func() {
					if _, _, _, err := p.Acquire(t.Context()); err != nil {
						t.Errorf("pool_timeout=%v: %v", timeout, err)
					}
				})
				time.Sleep(400 * time.Millisecond)
			}
			calls.Wait()
		})
	}
}

// endsLate is a context that ends between the second look at it and the third, and tells nobody.
type endsLate struct {
	context.Context
	looks atomic.Int32
}

func (c *endsLate) Err() error {
	if c.looks.Add(1) > 2 {
		return context.DeadlineExceeded
	}
	return nil
}

// What was dialled for somebody whose time has run out since it was served is kept for the next.
func TestServedTooLate(t *testing.T) {
	p := unlimited(&silent{})
	defer p.Close()
	if _, _, _, err := p.Acquire(&endsLate{Context: t.Context()}); err != context.DeadlineExceeded {
		t.Fatal(err)
	}
	if _, _, fresh, err := p.Acquire(t.Context()); err != nil || fresh {
		t.Errorf("dialled anew: %v, %v", fresh, err)
	}
}

// unready are things of which none is fit once it was free.
type unready struct{ silent }

func (*unready) Ready(context.Context, *line, time.Duration) error {
	time.Sleep(400 * time.Millisecond)
	return errors.New("no")
}

// Who was served what is of no use goes on waiting with the time that is left.
func TestTimeoutOfWhoWaitsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*line](&unready{}, pool.Options{Size: 2, Timeout: time.Second, Now: func() time.Duration { return 0 }})
		defer p.Close()
		var held []*line
		for range 2 {
			l, _, _, err := p.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, l)
		}
		p.Release(held[0], 0) // there is a place again once it was found unready
		p.Resize(1, 0)
		start := time.Now()
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				_, _, _, err := p.Acquire(t.Context())
				if took := time.Since(start); !errors.Is(err, pool.ErrTimeout) || took > 1100*time.Millisecond {
					t.Errorf("after %v: %v", took, err)
				}
			})
		}
		calls.Wait()
		p.Release(held[1], 0)
	})
}

// A pause is nothing that who doesn't wait at all waits for.
func TestNoWaitWhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*line](&silent{}, pool.Options{Size: 1, Timeout: 0, Now: func() time.Duration { return 0 }})
		defer p.Close()
		p.Pause()
		if _, _, _, err := p.Acquire(t.Context()); !errors.Is(err, pool.ErrTimeout) {
			t.Errorf("%v, want %v", err, pool.ErrTimeout)
		}
		p.Resume()
		if _, _, _, err := p.Acquire(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
