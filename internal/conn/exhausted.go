package conn

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/clock"
)

// exhaustion is what the log was told of checkouts that wait in vain as everything is in use.
type exhaustion struct {
	mu     sync.Mutex
	next   time.Duration // not before it is the log told again, by clock.Now()
	failed int64         // such checkouts since it was told
}

const (
	exhaustedEvery = time.Minute // the least time between two records
	leastShare     = 0.01        // of the pool's time, of a line of code that is named
)

// waitedInVain notes one more; true: this is the time to tell, and how many there were.
func (e *exhaustion) waitedInVain() (failed int64, tell bool) {
	now := clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed++
	if now < e.next {
		return 0, false
	}
	failed, e.failed, e.next = e.failed, 0, now+exhaustedEvery
	return failed, true
}

// warnExhausted logs who uses the pool, when somebody has waited for a connection in vain and each that there may be is in use. Where none can
// be opened, or the pool is paused, something else is to be told.
func (p *Pool) warnExhausted(ctx context.Context, e *PoolTimeoutError) {
	size, overflow := p.Limits()
	if e.Waited == 0 || overflow < 0 || e.InUse < int64(size+overflow) || errors.Is(e.Err, context.Canceled) {
		return
	}
	now := p.lending.Figures()
	if now.Paused > 0 {
		return
	}
	failed, tell := p.warned.exhausted.waitedInVain()
	if !tell {
		return
	}
	attrs := []any{"pool", p.opts.Name, "failed", failed, "in_use", e.InUse, "waiting", e.Waiting}
	if now.Standing > 0 {
		attrs = append(attrs, "queue_standing", now.Standing)
	}
	var users []string
	for _, u := range e.Usage {
		if u.Share >= leastShare {
			users = append(users, u.String())
		}
	}
	if len(users) > 0 {
		attrs = append(attrs, "used_by", strings.Join(users, "; "))
	}
	if len(e.Longest) > 0 {
		attrs = append(attrs, "longest_held", e.Longest[0].Duration, "longest_held_by", e.Longest[0].Caller)
	}
	p.opts.Logger().WarnContext(ctx, "managedpg: pool is exhausted", attrs...)
}
