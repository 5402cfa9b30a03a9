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

// opening is how long a dial takes in the tests that follow, in milliseconds as all of their times.
const opening = 100

// settling is a pool of which one thing is lent, for whose next user it is then being made fit.
type settling struct {
	*pool.Pool[*line]
	dials int // begun since
	began time.Time
	since time.Time // what Settling has said
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func newSettling(t *testing.T, opts pool.Options) *settling {
	t.Helper()
	s := &settling{}
	opts.Now = func() time.Duration { return 0 }
	s.Pool = pool.New[*line](&told{next: func() (time.Duration, error) { s.dials++; return ms(opening), nil }}, opts)
	t.Cleanup(s.Close)
	if _, _, _, err := s.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.dials, s.began, s.since = 0, time.Now(), s.Settling()
	return s
}

// back gives it back, fit for its next user, or broken, which takes a while to close.
func (s *settling) back(fit bool) (kept bool) {
	if fit {
		kept = s.Release(&line{}, 0)
	} else {
		s.Taken()
		time.AfterFunc(time.Second, s.Gone)
	}
	s.Settled(s.since)
	return kept
}

// waits has somebody wait, who is to be served after so long with what is fresh or isn't.
func (s *settling) waits(ctx context.Context, t *testing.T, served int, fresh bool) {
	t.Helper()
	began := time.Now()
	_, _, isFresh, err := s.Acquire(ctx)
	if took := time.Since(began); err != nil || took != ms(served) || isFresh != fresh {
		t.Errorf("after %v: fresh %v, %v; want after %v, fresh %v", took, isFresh, err, ms(served), fresh)
	}
}

func (s *settling) begun(t *testing.T, dials int) {
	t.Helper()
	synctest.Wait()
	if s.dials != dials {
		t.Errorf("%d dials, want %d", s.dials, dials)
	}
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}

// Whoever waits has what is being made fit for its next user, and no dial is begun beside it, unless that takes longer than a dial, or is broken. Who
// has a limit has time left for a dial of its own, if it had when it came.
func TestSettling(t *testing.T) {
	for _, test := range []struct {
		name     string
		timeout  int // the pool's; negative: none
		deadline int // the caller's; 0: none
		after    int // when it comes
		takes    int // for how long it is being made fit
		broken   bool
		served   int
		dials    int
	}{
		{name: "soon", timeout: -1, takes: 40, served: 40},
		{name: "as long as a dial", timeout: -1, takes: 99, served: 99},
		{name: "longer", timeout: -1, takes: 5000, served: 200, dials: 1},
		{name: "a little longer", timeout: -1, takes: 120, served: 120, dials: 1},
		{name: "somebody comes while it lasts", timeout: -1, after: 90, takes: 150, served: 60},
		{name: "somebody comes when it has lasted for too long", timeout: -1, after: 400, takes: 5000, served: 100, dials: 1},
		{name: "somebody comes just before", timeout: -1, after: 390, takes: 5000, served: 110, dials: 1},
		{name: "broken", timeout: -1, takes: 40, broken: true, served: 140, dials: 1},
		{name: "time for a dial and some more", timeout: -1, deadline: 180, takes: 5000, served: 130, dials: 1},
		{name: "time for a dial", timeout: -1, deadline: 120, takes: 5000, served: 100, dials: 1},
		{name: "no time for a dial", timeout: -1, deadline: 90, takes: 40, served: 40},
		{name: "no time for a dial, and a dial is of no use", timeout: -1, deadline: 90, takes: 80, served: 80, dials: 1},
		{name: "the pool's timeout is short", timeout: 60, takes: 5000, served: 130, dials: 1},
		{name: "the pool's timeout is 0", timeout: 0, takes: 5000, served: 100, dials: 1},
		{name: "the pool's timeout is long", timeout: 30000, takes: 5000, served: 200, dials: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSettling(t, pool.Options{Size: 1, MaxOverflow: 9, Timeout: ms(test.timeout)})
				time.AfterFunc(ms(test.takes), func() { s.back(!test.broken) })
				time.Sleep(ms(test.after))
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, ms(test.deadline))
					defer cancel()
				}
				s.waits(ctx, t, test.served, test.after+test.served != test.takes)
				s.begun(t, test.dials)
				time.Sleep(ms(test.takes)) // it is given back
				s.begun(t, test.dials)
			})
		})
	}
}

// Where nobody knows how long a dial takes, as the upkeep has made those that there were, it is waited for as long as most would take at most.
func TestSettlingBeforeAnyDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		p := pool.New[*line](&told{next: func() (time.Duration, error) { dials++; return ms(opening), nil }},
			pool.Options{Size: 1, MaxOverflow: 9, Timeout: -1, MinIdle: 1, Now: func() time.Duration { return 0 }})
		defer p.Close()
		_, _ = p.TryAcquire(t.Context())
		time.Sleep(time.Second)
		s := &settling{Pool: p}
		s.waits(t.Context(), t, 0, false)
		s.since = p.Settling()
		time.AfterFunc(5*time.Second, func() { s.back(true) })
		s.waits(t.Context(), t, 50+opening, true)
		time.Sleep(5 * time.Second)
	})
}

// Of two who wait the second has a dial.
func TestSettlingIsHopedForByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSettling(t, pool.Options{Size: 1, MaxOverflow: 9, Timeout: -1})
		time.AfterFunc(ms(40), func() { s.back(true) })
		var calls sync.WaitGroup
		calls.Go(func() { s.waits(t.Context(), t, 40, false) })
		synctest.Wait()
		s.begun(t, 0)
		calls.Go(func() { s.waits(t.Context(), t, opening, true) })
		s.begun(t, 1)
		calls.Wait()
		s.begun(t, 1)
	})
}

// Who has waited for as long as a dial takes hopes no more, whatever else is made fit since.
func TestSettlingAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSettling(t, pool.Options{Size: 8, MaxOverflow: 8, Timeout: -1})
		var others sync.WaitGroup
		others.Go(func() {
			for range 10 {
				time.Sleep(ms(30))
				one := s.Settling()
				s.Settled(s.since) // to be closed, say
				s.since = one
			}
		})
		s.waits(t.Context(), t, 2*opening, true)
		s.begun(t, 1)
		others.Wait()
		s.back(true)
	})
}

// Where there are as many as may be nothing but what is given back, or closed, helps.
func TestSettlingAtTheLimit(t *testing.T) {
	for _, fit := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSettling(t, pool.Options{Size: 1, Timeout: -1})
			time.AfterFunc(ms(300), func() { s.back(fit) })
			if fit {
				s.waits(t.Context(), t, 300, false)
				s.begun(t, 0)
			} else {
				s.waits(t.Context(), t, 300+1000+opening, true)
				s.begun(t, 1)
			}
		})
	}
}

// Pause waits for it, as it is lent, and dials for nobody meanwhile; Resume has whoever waits hope for what is left of the time.
func TestSettlingWhilePaused(t *testing.T) {
	for _, test := range []struct {
		resume, takes int
		broken        bool
		served, dials int
	}{
		{resume: 300, takes: 150, served: 300},
		{resume: 300, takes: 150, broken: true, served: 400, dials: 1},
		{resume: 50, takes: 90, served: 90},
		{resume: 50, takes: 5000, served: 200, dials: 1},
		{resume: 300, takes: 350, served: 350, dials: 1}, // it has waited for long enough
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSettling(t, pool.Options{Size: 1, MaxOverflow: 9, Timeout: -1})
				drained := s.Pause()
				time.AfterFunc(ms(test.takes), func() { s.back(!test.broken) })
				time.AfterFunc(ms(test.resume), func() {
					select {
					case <-drained:
						if test.takes > test.resume {
							t.Error("drained before it was given back")
						}
					default:
						if test.takes < test.resume {
							t.Error("not drained though it was given back")
						}
					}
					s.begun(t, 0)
					s.Resume()
				})
				s.waits(t.Context(), t, test.served, test.dials > 0 && test.served != test.takes)
				s.begun(t, test.dials)
				time.Sleep(ms(test.takes))
			})
		})
	}
}

// With more places there is a dial as soon as there would have been with as many from the first; with fewer what is given back isn't kept.
func TestSettlingWhileResized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSettling(t, pool.Options{Size: 1, Timeout: -1})
		time.AfterFunc(ms(60), func() { s.Resize(1, 1) })
		time.AfterFunc(ms(5000), func() { s.back(true) })
		s.waits(t.Context(), t, 2*opening, true)
		s.begun(t, 1)
		s.Resize(1, 0)
		time.Sleep(ms(5000))
		s.begun(t, 1)
		if n := s.Places(); n != 2 { // until the one that wasn't kept is gone
			t.Errorf("%d places", n)
		}
	})
}

// Close wakes whoever hopes for it, and nothing is dialled after; it isn't kept.
func TestSettlingWhileClosed(t *testing.T) {
	for _, fit := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newSettling(t, pool.Options{Size: 1, MaxOverflow: 9, Timeout: -1})
			time.AfterFunc(ms(50), s.Close)
			if _, waited, _, err := s.Acquire(t.Context()); !errors.Is(err, pool.ErrClosed) || waited != ms(50) {
				t.Errorf("after %v: %v", waited, err)
			}
			time.Sleep(ms(500))
			if s.back(fit) {
				t.Error("a closed pool has kept it")
			}
			s.begun(t, 0)
			if fit {
				s.Gone()
			}
			time.Sleep(2 * time.Second)
			if n := s.Places(); n != 0 {
				t.Errorf("%d places are left", n)
			}
		})
	}
}

// Without a limit there is a dial at once, as with a bare driver.
func TestSettlingWithoutALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSettling(t, pool.Options{Size: 1, MaxOverflow: -1, Timeout: -1})
		time.AfterFunc(ms(5000), func() { s.back(true) })
		s.waits(t.Context(), t, opening, true)
		s.begun(t, 1)
		time.Sleep(ms(5000))
	})
}

// A dial that was slow once keeps nobody from one of its own, though each has less time than that took: the next ones are quick, and a bare driver
// would serve everybody.
func TestSettlingAfterASlowDial(t *testing.T) {
	for _, takes := range []int{150, 400, 900} {
		synctest.Test(t, func(t *testing.T) {
			opening := ms(900)
			p := pool.New[*line](&told{next: func() (time.Duration, error) { defer func() { opening = ms(5) }(); return opening, nil }},
				pool.Options{Size: 4, MaxOverflow: 4, Timeout: 30 * time.Second, Now: func() time.Duration { return 0 }})
			thing, _, _, err := p.Acquire(t.Context())
			for range 100 {
				if err != nil {
					t.Fatalf("made fit for %d ms: %v", takes, err)
				}
				one, since := thing, p.Settling()
				time.AfterFunc(ms(takes), func() {
					if !p.Release(one, 0) {
						p.Gone()
					}
					p.Settled(since)
				})
				ctx, cancel := context.WithTimeout(t.Context(), ms(200))
				if thing, _, _, err = p.Acquire(ctx); err == nil {
					<-ctx.Done() // as its statement does
				}
				cancel()
			}
			time.Sleep(time.Second)
			p.Close()
		})
	}
}
