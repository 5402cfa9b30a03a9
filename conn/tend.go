package conn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/usercode"
)

// tender is the goroutine that looks after a governed pool's free connections: it closes those that are too old or idle
// for too long, and opens ahead what pool_min_idle asks for. It runs from the first checkout on, if there is such work.
type tender struct {
	pool   *Pool
	period time.Duration // 0: nothing to do
	once   sync.Once
	kick   chan struct{}
	done   chan struct{} // closed when the goroutine has ended; nil if it was never started
	mu     sync.Mutex    // guards done
}

const (
	tendAtLeast = 10 * time.Millisecond
	tendAtMost  = 10 * time.Second
	tendMinIdle = time.Second // how soon a failed dial ahead is tried again
)

func (t *tender) init(p *Pool) {
	t.pool = p
	t.kick = make(chan struct{}, 1)
	if !p.governed {
		t.once.Do(func() {})
		return
	}
	for _, limit := range []time.Duration{p.opts.Recycle, p.opts.IdleTimeout} {
		if limit > 0 {
			t.period = min(max(limit/10, tendAtLeast), tendAtMost, nonZero(t.period))
		}
	}
	if p.opts.MinIdle > 0 {
		t.period = min(tendMinIdle, nonZero(t.period))
	}
	if t.period == 0 {
		t.once.Do(func() {})
	}
}

func nonZero(d time.Duration) time.Duration {
	if d == 0 {
		return 1<<63 - 1
	}
	return d
}

func (t *tender) start() {
	t.once.Do(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.pool.ctx.Err() == nil {
			t.done = make(chan struct{})
			go t.run(t.pool.ctx, t.done)
		}
	})
}

// wake makes it look now rather than at the next tick.
func (t *tender) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// finish waits for the goroutine, which ends with the pool's context.
func (t *tender) finish() {
	t.mu.Lock()
	done := t.done
	t.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (t *tender) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	tick := time.NewTicker(t.period)
	defer tick.Stop()
	for {
		t.pool.sweep(now())
		t.pool.fill(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-t.kick:
		}
	}
}

// fill opens connections until pool_min_idle are free or pool_size are open.
func (p *Pool) fill(ctx context.Context) {
	for p.takeSpare() {
		ph, err := p.dialAhead(ctx)
		if err != nil {
			p.release()
			return
		}
		if why, kept := p.putFree(ph); !kept {
			p.end(ph, why, p.release)
			return
		}
	}
}

// dialAhead doesn't wait for long: in an outage the tender has other things to see to, and comes back.
func (p *Pool) dialAhead(ctx context.Context) (*physical, error) {
	ctx, cancel := context.WithTimeout(ctx, tendAtMost)
	defer cancel()
	var ph *physical
	err := usercode.Call(func() (err error) { ph, err = p.dial(ctx); return err })
	p.logPanic(err)
	return ph, err
}

// logPanic tells of a panic in code of the user's on a goroutine of ours: a dialer, a hook.
func (p *Pool) logPanic(err error) {
	var panicked *usercode.Panic
	if errors.As(err, &panicked) {
		p.opts.Logger().Error("managedpg: panic in a dial", "pool", p.opts.Name, "panic", fmt.Sprint(panicked.Value), "stack", string(panicked.Stack))
	}
}

// takeSpare takes a permit and the place of a connection to be opened ahead, if one is wanted.
func (p *Pool) takeSpare() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanting() && p.permits.take() {
		p.places++
		return true
	}
	return false
}

// wanting says whether to open a connection ahead. That happens beside free ones, unlike at a checkout, so it is
// pool_size that limits it, dials under way included: else there could be more sockets than permits. It needs mu.
func (p *Pool) wanting() bool {
	return !p.closed && len(p.free) < p.opts.MinIdle && p.places < p.opts.Size
}
