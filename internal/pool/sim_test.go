package pool_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/internal/pool"
)

var (
	seeds     = flag.Int("seeds", 300, "how many random loads TestSimulation plays")
	firstSeed = flag.Uint64("seed", 1, "the first of them; with -seeds=1 one is played again")
)

// world is what a pool lends in fake time, and what is held against it at every step.
type world struct {
	t      *testing.T
	pool   *pool.Pool[*thing]
	random *rand.Rand
	seed   uint64

	mu       sync.Mutex
	open     int // things that exist, those being dialled and closed included
	most     int
	limit    int // negative: none
	dialTime time.Duration
	failing  float64 // how many of the dials fail
	hanging  bool
	mortal   bool // things die
	failures int
}

type thing struct {
	lent   bool
	closed bool
	dead   bool
}

var errDial, errDead = errors.New("refused"), errors.New("found dead")

func (w *world) Dial(ctx context.Context, _ time.Time) (*thing, error) {
	w.mu.Lock()
	w.open++
	w.most = max(w.most, w.open)
	if w.limit >= 0 && w.open > w.limit {
		w.t.Errorf("seed %d: %d at a time, the limit is %d", w.seed, w.open, w.limit)
	}
	d, fails, hangs := w.dialTime, w.random.Float64() < w.failing, w.hanging
	w.mu.Unlock()
	if hangs {
		d = time.Minute
	}
	select {
	case <-after(d):
		if !fails && !hangs {
			return &thing{}, nil
		}
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open--
	w.failures++
	return nil, cmp.Or(ctx.Err(), errDial)
}

// after is time.After, but never at once: in a bubble of synctest whoever waits for a timer that is due runs it, and under the race detector the program
// may crash where several do so at a time (Go 1.26: unlockAndRun in the runtime's time.go uses one race context for the whole bubble).
func after(d time.Duration) <-chan time.Time { return time.After(max(d, 1)) }

func (w *world) Ready(_ context.Context, th *thing, _ time.Duration) error {
	if th.dead {
		return errDead
	}
	return nil
}

func (w *world) Stale(th *thing, _ time.Duration) error { return nil }

func (w *world) Close(th *thing, _ error, done func()) {
	w.mu.Lock()
	if th.closed {
		w.t.Errorf("seed %d: closed twice", w.seed)
	}
	th.closed = true
	w.mu.Unlock()
	go func() {
		time.Sleep(time.Millisecond)
		w.mu.Lock()
		w.open--
		w.mu.Unlock()
		done()
	}()
}

// call is one of the load's.
type call struct {
	at       time.Duration
	takes    time.Duration
	deadline time.Duration // from at; 0: none
}

// use makes a call, and says whether it was done in time.
func (w *world) use(c call, began time.Time) (done bool, err error) {
	ctx := context.Background()
	if c.deadline > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.deadline)
		defer cancel()
	}
	th, _, _, err := w.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	w.mu.Lock()
	if th.lent || th.closed {
		w.t.Errorf("seed %d: lent twice, or closed", w.seed)
	}
	th.lent = true
	w.mu.Unlock()
	select {
	case <-after(c.takes):
		done = true
	case <-ctx.Done():
	}
	w.mu.Lock()
	th.lent = false
	th.dead = w.mortal && w.random.IntN(200) == 0
	lost := w.mortal && w.random.IntN(100) == 0
	settles := time.Duration(0)
	if w.mortal && (!done || w.random.IntN(20) == 0) {
		settles = time.Duration(w.random.ExpFloat64() * float64(10*time.Millisecond))
	}
	w.mu.Unlock()
	back := func() {
		if lost {
			w.pool.Discard(th, errDead)
		} else if !w.pool.Release(th, w.now()) {
			w.Close(th, pool.ErrSurplus, w.pool.Gone)
		}
	}
	if settles == 0 {
		back()
		return done, nil
	}
	since := w.pool.Settling()
	go func() {
		time.Sleep(settles)
		back()
		w.pool.Settled(since)
		w.check()
	}()
	return done, nil
}

func (w *world) now() time.Duration { return time.Duration(time.Now().UnixNano()) }

func (w *world) check() {
	if err := w.pool.Check(); err != nil {
		w.t.Errorf("seed %d: %v", w.seed, err)
	}
}

// TestSimulation plays random loads: arrivals in a row and in bursts, deadlines or none, things that die or have to be made fit for their next user,
// dials that take long, fail and hang, limits that change, pauses. At each step there are never more things than the limit, nobody waits beside a free one, each
// call ends once, and in the end nothing is left. What is got done in time is compared with what could have been.
func TestSimulation(t *testing.T) {
	var done, possible time.Duration
	for n := range *seeds {
		seed := *firstSeed + uint64(n)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { simulate(t, seed, &done, &possible) }) }) {
			t.Logf("again: go test -run TestSimulation ./internal/pool -seeds=1 -seed=%d", seed)
		}
	}
	t.Logf("%.3f of the work that was possible was done in time", float64(done)/float64(possible))
	if float64(done) < 0.95*float64(possible) {
		t.Error("want 0.95 of it")
	}
}

func simulate(t *testing.T, seed uint64, allDone, allPossible *time.Duration) {
	random := rand.New(rand.NewPCG(seed, 0))
	size := 1 + random.IntN(8)
	trouble := random.IntN(2) == 0 // else a steady load on things that last, whose goodput is judged
	overflow := 0
	if trouble {
		overflow = random.IntN(5) - 1
	}
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), seed: seed, limit: limitOf(size, overflow), dialTime: time.Duration(random.IntN(20)) * time.Millisecond}
	opts := pool.Options{Size: size, MaxOverflow: overflow, Timeout: -1, Now: w.now}
	if trouble && random.IntN(2) == 0 {
		opts.Timeout = time.Duration(1+random.IntN(2000)) * time.Millisecond
	}
	if random.IntN(3) == 0 {
		opts.MinIdle, opts.IdleTimeout = random.IntN(size+1), time.Duration(random.IntN(300))*time.Millisecond
	}
	w.pool = pool.New[*thing](w, opts)

	w.mortal = trouble

	load := arrivals(random, size+max(overflow, 0))
	last := load[len(load)-1].at
	start := time.Now()
	var calls sync.WaitGroup
	var mu sync.Mutex
	var useful time.Duration
	count := 0
	if trouble {
		calls.Go(func() { w.trouble(random, last) })
	}
	for _, c := range load {
		time.Sleep(time.Until(start.Add(c.at)))
		w.check()
		calls.Go(func() {
			done, err := w.use(c, start)
			mu.Lock()
			defer mu.Unlock()
			count++
			if done && time.Since(start) <= last {
				useful += c.takes
			}
			if err != nil && !trouble && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, pool.ErrTimeout) {
				t.Errorf("seed %d: %v", seed, err)
			}
		})
	}
	calls.Wait()
	w.check()
	if count != len(load) {
		t.Errorf("seed %d: %d of %d calls ended", seed, count, len(load))
	}
	if !trouble {
		possible := oracle(load, size, opts.Timeout, w.dialTime)
		*allDone, *allPossible = *allDone+useful, *allPossible+possible
		// A burst near the capacity can only be served better by somebody who knows how long each call takes.
		if float64(useful) < 0.85*float64(possible) {
			t.Errorf("seed %d: %v of work was done in time, %v were possible (%.2f)", seed, useful, possible, float64(useful)/float64(possible))
		}
	}
	w.pool.Close()
	synctest.Wait()
	time.Sleep(time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open != 0 || w.pool.Places() != 0 {
		t.Errorf("seed %d: %d things are left, %d places", seed, w.open, w.pool.Places())
	}
}

// limitOf is how many things there may be; negative: any number.
func limitOf(size, overflow int) int {
	if overflow < 0 {
		return -1
	}
	return size + overflow
}

// arrivals is a load for so many things: below what they can do, about that, or far above, with bursts.
func arrivals(random *rand.Rand, things int) []call {
	takes := time.Duration(1+random.IntN(20)) * time.Millisecond
	factor := []float64{0.3, 0.7, 0.95, 1.5, 4}[random.IntN(5)]
	gap := float64(takes) / float64(things) / factor
	deadline := time.Duration(0)
	if random.IntN(4) > 0 {
		deadline = takes * time.Duration(20+random.IntN(40))
	}
	var load []call
	at := 0.0
	for at < float64(3*time.Second) && len(load) < 2500 {
		at += random.ExpFloat64() * gap
		n := 1
		if random.IntN(300) == 0 {
			n = 50
		}
		for range n {
			c := call{at: time.Duration(at), takes: takes, deadline: deadline}
			if random.IntN(2) == 0 {
				c.takes = time.Duration(random.ExpFloat64() * float64(takes))
			}
			load = append(load, c)
			at++
		}
	}
	return load
}

// trouble changes what the pool meets, until the load is over.
func (w *world) trouble(random *rand.Rand, until time.Duration) {
	for end := time.Now().Add(until); time.Now().Before(end); {
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		w.mu.Lock()
		w.failing, w.hanging = 0, false
		w.dialTime = time.Duration(random.IntN(20)) * time.Millisecond
		what := random.IntN(6)
		switch what {
		case 0:
			w.failing = 1
		case 1:
			w.failing = 0.5
		case 2:
			w.dialTime = 150 * time.Millisecond
		}
		w.mu.Unlock()
		switch what {
		case 3:
			size, overflow := 1+random.IntN(8), random.IntN(5)-1
			w.mu.Lock()
			if limit := limitOf(size, overflow); limit < 0 || w.limit < 0 {
				w.limit = -1 // it isn't known any more how many will come back
			} else {
				w.limit = max(w.limit, w.open, limit) // those that are lent go when they come back
			}
			w.mu.Unlock()
			w.pool.Resize(size, overflow)
		case 4:
			select {
			case <-w.pool.Pause():
			case <-time.After(time.Second):
			}
			if w.pool.Figures().Paused < 0 {
				w.t.Error("not paused")
			}
			w.check()
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			w.pool.Resume()
		}
		w.check()
	}
	w.mu.Lock()
	w.failing, w.hanging = 0, false
	w.mu.Unlock()
	w.pool.Resume()
}

// oracle is the work that gets done in time by somebody who knows how long each call takes, though not which will come: what can't be
// done in time any more isn't begun. Only what is done while there are arrivals counts: what is left over in the end is another
// matter. It has all things open from the first dial on.
func oracle(load []call, things int, timeout, dial time.Duration) (useful time.Duration) {
	last := load[len(load)-1].at
	free := make([]time.Duration, things)
	for i := range free {
		free[i] = load[0].at + dial
	}
	waiting := slices.Clone(load)
	for len(waiting) > 0 {
		slices.Sort(free)
		at := max(free[0], waiting[0].at)
		next := -1
		for i := 0; i < len(waiting) && waiting[i].at <= at; i++ {
			c := waiting[i]
			late := c.deadline > 0 && at+c.takes > c.at+c.deadline || timeout >= 0 && at > c.at+timeout
			if late {
				waiting = slices.Delete(waiting, i, i+1)
				i--
				continue
			}
			if next < 0 {
				next = i
			}
		}
		if next < 0 {
			continue
		}
		c := waiting[next]
		waiting = slices.Delete(waiting, next, next+1)
		if free[0] = at + c.takes; free[0] <= last {
			useful += c.takes
		}
	}
	return useful
}
