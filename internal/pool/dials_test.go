package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/pool"
)

// hanging are things whose dials take long, as in an outage, and all succeed when it is over.
type hanging struct {
	silent
	over             chan struct{}
	now, most, begun int // see counts
}

func (h *hanging) Dial(ctx context.Context, _ time.Time) (*line, error) {
	h.mu.Lock()
	h.begun++
	h.now++
	h.most = max(h.most, h.now)
	h.mu.Unlock()
	var err error
	select {
	case <-h.over:
	case <-ctx.Done():
		err = ctx.Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
	return &line{}, err
}

// counts are the dials under way, and the most that there were, and all that were begun.
func (h *hanging) counts() (now, most, begun int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now, h.most, h.begun
}

func unlimited(things pool.Things[*line]) *pool.Pool[*line] {
	opts := pool.Options{OrphanTimeout: 5 * time.Second, MaxOverflow: -1, Timeout: -1}
	began := time.Now()
	opts.Now = func() time.Duration { return time.Since(began) }
	return pool.New[*line](things, opts)
}

// Without a limit there is one dial for each who waits, however long it takes, as there is with a bare driver.
func TestSlowDialsDontMultiply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		things := &hanging{over: make(chan struct{})}
		p := unlimited(things)
		defer p.Close()
		const callers = 20
		var calls sync.WaitGroup
		for range callers {
			calls.Go(func() {
				if _, _, _, err := p.Acquire(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(20 * time.Second)
		close(things.over)
		calls.Wait()
		if _, _, begun := things.counts(); begun != callers {
			t.Errorf("%d dials for %d callers", begun, callers)
		}
	})
}

// Those whose caller has gone end, but for some seconds in which the next caller may be glad of them.
func TestSlowDialsForNobodyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		things := &hanging{over: make(chan struct{})}
		p := unlimited(things)
		defer p.Close()
		const callers = 10
		var calls sync.WaitGroup
		for range callers {
			calls.Go(func() {
				for range 100 {
					ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
					if _, _, _, err := p.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		calls.Wait()
		if _, most, _ := things.counts(); most > 5*callers {
			t.Errorf("%d dials under way for %d callers at a time", most, callers)
		}
		time.Sleep(5 * time.Second)
		if now, _, _ := things.counts(); now != 0 || p.Places() != 0 {
			t.Errorf("%d dials under way for nobody, %d places", now, p.Places())
		}
		if err := p.LastError(); err != nil {
			t.Errorf("that counts as a failure: %v", err)
		}
	})
}

// slowly are things of which each takes a time to dial.
type slowly struct {
	silent
	takes time.Duration
}

func (s *slowly) Dial(ctx context.Context, _ time.Time) (*line, error) {
	select {
	case <-after(s.takes):
		return &line{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Opening takes longer than any call may, and than slowDial: whoever calls then has it. Who has the time has its own, whoever else calls.
func TestSlowDialsOutliveTheirCallers(t *testing.T) {
	for _, takes := range []time.Duration{1500 * time.Millisecond, 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			p := unlimited(&slowly{takes: takes})
			defer p.Close()
			patient := make(chan time.Duration)
			start := time.Now()
			go func() {
				if _, _, _, err := p.Acquire(t.Context()); err != nil {
					t.Error(err)
				}
				patient <- time.Since(start)
			}()
			ok := 0
			for time.Since(start) < 10*time.Second {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				if _, _, _, err := p.Acquire(ctx); err == nil {
					ok++
				}
				cancel()
			}
			if ok < 2 {
				t.Errorf("%d calls succeeded, where opening takes %v", ok, takes)
			}
			if took := <-patient; took != takes {
				t.Errorf("a patient caller waited for %v, where opening takes %v", took, takes)
			}
		})
	}
}

// Opening takes longer than calls have that are too rare to meet another's dial, each of which is worth something to the next.
func TestSlowDialsOfRareCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := unlimited(&slowly{takes: 3500 * time.Millisecond})
		defer p.Close()
		ok := 0
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			if _, _, _, err := p.Acquire(ctx); err == nil {
				ok++
			}
			cancel()
			time.Sleep(4500 * time.Millisecond)
		}
		if ok < 9 {
			t.Errorf("%d of 20 calls succeeded, of which every second finds what the one before has dialled", ok)
		}
	})
}

// told are things of which each dial takes and meets what the test says.
type told struct {
	silent
	next      func() (time.Duration, error)
	now, most int // under way
}

func (o *told) Dial(ctx context.Context, _ time.Time) (*line, error) {
	count := func(n int) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.now += n
		o.most = max(o.most, o.now)
	}
	o.mu.Lock()
	takes, err := o.next()
	o.mu.Unlock()
	count(1)
	defer count(-1)
	select {
	case <-after(takes):
		return &line{}, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

var errRefused = errors.New("refused")

// Without a limit whoever's own dial has failed is told so at once, whatever becomes of others' dials, and one that hangs for a patient caller keeps
// nobody else from dialling for longer than a second.
func TestOneDialHangsAndOneFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := unlimited(&told{next: func() (time.Duration, error) {
			switch n++; n {
			case 1:
				return 5 * time.Second, errors.New("timeout")
			case 2:
				return 10 * time.Millisecond, errRefused
			default:
				return 10 * time.Millisecond, nil
			}
		}})
		defer p.Close()
		patient := make(chan error)
		go func() {
			_, _, _, err := p.Acquire(t.Context())
			patient <- err
		}()
		synctest.Wait()
		start := time.Now()
		if _, _, _, err := p.Acquire(t.Context()); err != errRefused || time.Since(start) > 20*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		failed := 0
		for time.Since(start) < 4*time.Second {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			if _, _, _, err := p.Acquire(ctx); err != nil {
				failed++
			}
			cancel()
		}
		if failed > 2 {
			t.Errorf("%d calls failed of those that began while another's dial hung", failed)
		}
		if err := <-patient; err != nil && err.Error() != "timeout" { // it may have been served what came too late for another
			t.Error(err)
		}
	})
}

// One dial that hangs doesn't have everybody queue whom all others' errors could tell.
func TestOneDialHangsAndAllOthersFail(t *testing.T) {
	for _, opts := range []pool.Options{{MaxOverflow: -1, Timeout: -1}, {Size: 8, Timeout: 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			opts.Now = func() time.Duration { return 0 }
			p := pool.New[*line](&told{next: func() (time.Duration, error) {
				if n++; n%50 == 1 {
					return 5 * time.Second, errors.New("timeout")
				}
				return time.Millisecond, errRefused
			}}, opts)
			defer p.Close()
			var calls sync.WaitGroup
			var waited atomic.Int64
			const callers = 1000
			for range callers {
				time.Sleep(10 * time.Millisecond)
				calls.Go(func() {
					start := time.Now()
					_, _, _, err := p.Acquire(t.Context())
					if err == nil {
						t.Error("connected")
					}
					waited.Add(int64(time.Since(start)))
				})
			}
			calls.Wait()
			if mean := time.Duration(waited.Load() / callers); mean > 500*time.Millisecond {
				t.Errorf("told after %v on average (%+v)", mean, opts)
			}
		})
	}
}

// outage are things whose dials hang for 5 s until it is over, and fail then, but for the first, which is refused; after it they succeed at once.
func outage(over *atomic.Bool) *told {
	n := 0
	return &told{next: func() (time.Duration, error) {
		if over.Load() {
			return 100 * time.Microsecond, nil
		}
		if n++; n == 1 {
			return time.Millisecond, errRefused
		}
		return 5 * time.Second, errors.New("timeout")
	}}
}

// What dials from an outage meet in the end is no news once others have succeeded, nor does one of them keep anybody from a dial that may be quicker.
func TestDialsFromBeforeTheEndOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over atomic.Bool
		over.Store(true)
		p := unlimited(outage(&over))
		defer p.Close()
		call := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_, _, _, err := p.Acquire(ctx)
			if err == nil {
				p.Detach()
			}
			return err
		}
		if err := call(); err != nil {
			t.Fatal(err)
		}
		over.Store(false)
		var calls sync.WaitGroup
		for range 5 {
			calls.Go(func() { _ = call() })
		}
		calls.Wait()
		over.Store(true)
		for start := time.Now(); time.Since(start) < 8*time.Second; time.Sleep(time.Millisecond) {
			if err := call(); err != nil {
				t.Errorf("%v after the outage: %v", time.Since(start), err)
			}
		}
	})
}

// Who waits beside a dial that hangs, and whose asker has gone, gets another when that takes longer by far than dials did, and doesn't wait for
// somebody else to come.
func TestDialBesideOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := unlimited(&told{next: func() (time.Duration, error) {
			if n++; n == 2 {
				return 5 * time.Second, errors.New("timeout")
			}
			return time.Millisecond, nil
		}})
		defer p.Close()
		if _, _, _, err := p.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if _, _, _, err := p.Acquire(ctx); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		if _, waited, _, err := p.Acquire(t.Context()); err != nil || waited > 100*time.Millisecond {
			t.Errorf("served after %v, %v", waited, err)
		}
	})
}

// Who has time is served after some seconds at most, though others, who have less than opening takes, come and go all the time.
func TestWhoHasTimeIsServed(t *testing.T) {
	for _, takes := range []time.Duration{320 * time.Millisecond, 800 * time.Millisecond, 1500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := unlimited(&slowly{takes: takes})
			defer p.Close()
			start := time.Now()
			var calls sync.WaitGroup
			for range 20 {
				calls.Go(func() {
					for time.Since(start) < 20*time.Second {
						ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
						if _, _, _, err := p.Acquire(ctx); err == nil {
							time.Sleep(20 * time.Millisecond)
							p.Detach()
						}
						cancel()
					}
				})
			}
			for time.Since(start) < 18*time.Second {
				_, waited, _, err := p.Acquire(t.Context())
				if err != nil {
					t.Error(err)
				}
				if most := takes + 1100*time.Millisecond; waited > most {
					t.Errorf("served after %v, want %v at most", waited, most)
				}
				p.Detach()
			}
			calls.Wait()
		})
	}
}

// Who has time enough for a dial of its own, as under a bare driver, has that time, whatever it hopes for from the dials of others, who come and go.
func TestTimeForADialOfOnesOwn(t *testing.T) {
	for seed := range uint64(80) {
		synctest.Test(t, func(t *testing.T) {
			r, dials := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 0))
			takes := time.Duration(50+r.IntN(950)) * time.Millisecond
			share := func(r *rand.Rand, from, to float64) time.Duration {
				return time.Duration(float64(takes) * (from + (to-from)*r.Float64()))
			}
			less, enough, varies := share(r, 0.2, 0.95), share(r, 1.1, 3.1), 0.0
			if seed%2 == 1 {
				less, enough, varies = share(r, 0.2, 0.75), share(r, 1.25, 3.1), 0.2
			}
			p := unlimited(&told{next: func() (time.Duration, error) { return share(dials, 1-varies, 1+varies), nil }})
			defer p.Close()
			start := time.Now()
			acquire := func(limit, pause time.Duration) error {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				_, _, _, err := p.Acquire(ctx)
				if err == nil {
					time.Sleep(20 * time.Millisecond)
					p.Detach()
				}
				time.Sleep(pause)
				return err
			}
			var others sync.WaitGroup
			for i := range 1 + r.IntN(30) {
				others.Go(func() {
					r := rand.New(rand.NewPCG(seed, 2+uint64(i)))
					for time.Since(start) < 20*time.Second {
						if err := acquire(less, time.Duration(r.IntN(300))*time.Millisecond); err != nil && err != context.DeadlineExceeded {
							t.Error(err)
						}
					}
				})
			}
			for time.Since(start) < 18*time.Second {
				if err := acquire(enough, time.Duration(r.IntN(100))*time.Millisecond); err != nil {
					t.Errorf("seed %d: opening takes %v, and who had %v: %v", seed, takes, enough, err)
				}
			}
			others.Wait()
		})
	}
}

// Against a server that hangs whoever waits is told once a dial has failed that was begun since, as it would be of one of its own.
func TestAllDialsHangAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := unlimited(&told{next: func() (time.Duration, error) {
			if n++; n == 1 {
				return time.Millisecond, errRefused
			}
			return 5 * time.Second, errors.New("timeout")
		}})
		defer p.Close()
		if _, _, _, err := p.Acquire(t.Context()); err != errRefused {
			t.Error(err)
		}
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				if _, waited, _, err := p.Acquire(t.Context()); err == nil || waited > 10100*time.Millisecond {
					t.Errorf("told %v after %v", err, waited)
				}
			})
		}
		calls.Wait()
	})
}

// All who wait beside dials that hang, and whose askers have gone, get others soon, though nobody else comes.
func TestDialsBesideThoseThatHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := unlimited(&told{next: func() (time.Duration, error) {
			if n++; 2 <= n && n <= 7 {
				return 5 * time.Second, errors.New("timeout")
			}
			return time.Millisecond, nil
		}})
		defer p.Close()
		if _, _, _, err := p.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
		var calls sync.WaitGroup
		for range 5 {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
				defer cancel()
				if _, _, _, err := p.Acquire(ctx); err != context.DeadlineExceeded {
					t.Error(err)
				}
			})
		}
		calls.Wait()
		late := atomic.Int64{}
		for range 5 {
			calls.Go(func() {
				if _, waited, _, _ := p.Acquire(t.Context()); waited > 300*time.Millisecond {
					late.Add(1)
				}
			})
		}
		calls.Wait()
		if late.Load() > 1 { // the first has the last that hangs
			t.Errorf("%d of 5 were served late", late.Load())
		}
	})
}

// Where some dials hang they don't pile up.
func TestDialsThatHangDontPileUp(t *testing.T) {
	for _, callers := range []int{1, 10, 50} {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			things := &told{next: func() (time.Duration, error) {
				if n++; n%2 == 0 {
					return time.Millisecond, nil
				}
				return 5 * time.Second, errors.New("timeout")
			}}
			p := unlimited(things)
			defer p.Close()
			start := time.Now()
			var calls sync.WaitGroup
			for i := range callers {
				calls.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond / time.Duration(callers))
					for time.Since(start) < 10*time.Second {
						ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
						_, _, _, err := p.Acquire(ctx)
						cancel()
						if err == nil {
							p.Detach()
							time.Sleep(20 * time.Millisecond)
						}
					}
				})
			}
			calls.Wait()
			things.mu.Lock()
			defer things.mu.Unlock()
			if things.most > 2*callers+2 {
				t.Errorf("%d dials under way for %d callers", things.most, callers)
			}
		})
	}
}

// With a limit, the failures of dials that the pool has begun beside a slow one are nothing to tell those whom that one will serve.
func TestSlowDialIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := pool.New[*line](&told{next: func() (time.Duration, error) {
			if n++; n == 1 {
				return 1200 * time.Millisecond, nil
			}
			return time.Millisecond, errRefused
		}}, pool.Options{Size: 5, Timeout: 30 * time.Second, Now: func() time.Duration { return 0 }})
		defer p.Close()
		if _, waited, _, err := p.Acquire(t.Context()); err != nil || waited > 1300*time.Millisecond {
			t.Errorf("after %v: %v", waited, err)
		}
	})
}

// With a limit slow dials may yet serve many, and a few that were refused beside them are told to nobody who waits for those.
func TestSlowDialsServeManyWithALimit(t *testing.T) {
	start := time.Time{}
	for name, next := range map[string]func(n int) (time.Duration, error){
		"others are refused": func(n int) (time.Duration, error) {
			if 3 <= n && n <= 5 {
				return time.Millisecond, errRefused
			}
			return 1200 * time.Millisecond, nil
		},
		"the first of a hung server time out": func(n int) (time.Duration, error) {
			back := 5500*time.Millisecond - time.Since(start)
			switch {
			case n == 1:
				return time.Millisecond, errRefused
			case back > 5*time.Second:
				return 5 * time.Second, errors.New("timeout")
			default:
				return max(back, time.Millisecond), nil
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			start = time.Now()
			n := 0
			p := pool.New[*line](&told{next: func() (time.Duration, error) { n++; return next(n) }},
				pool.Options{Size: 4, Timeout: 30 * time.Second, Now: func() time.Duration { return time.Since(start) }})
			defer p.Close()
			var calls sync.WaitGroup
			var failed atomic.Int64
			for range 20 {
				calls.Go(func() {
					l, _, _, err := p.Acquire(t.Context())
					if err != nil {
						failed.Add(1)
						return
					}
					time.Sleep(10 * time.Millisecond)
					p.Release(l, 0)
				})
			}
			calls.Wait()
			if failed.Load() > 4 { // as many dials as bare drivers with so many places would lose
				t.Errorf("%s: %d of 20 failed", name, failed.Load())
			}
		})
	}
}
