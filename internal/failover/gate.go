package failover

import (
	"context"
	"time"
)

// headStart is how long the first dial to an endpoint without connections has it to itself: a server that eight dials
// reach at once answers the first of them several times later.
const headStart = 50 * time.Millisecond

// gate lets the dials to an endpoint through: so many at a time, and to one without connections the first ahead of the others.
type gate struct {
	slots chan struct{} // one for each dial under way

	// What follows is guarded by Group.mu.
	first   chan struct{} // closed when a dial ends; nil while none has its head start
	firstAt time.Time     // when that began
	down    chan struct{} // closed, and replaced, when a dial finds the endpoint down
	downErr error         // what that dial met
}

func newGate(limit int) gate {
	return gate{slots: make(chan struct{}, limit), down: make(chan struct{})}
}

// behindLocked is what to wait for when another dial has its head start, and for how long at most; else nil, and this one may have it.
func (t *gate) behindLocked() (first <-chan struct{}, left time.Duration) {
	if t.first == nil {
		t.first, t.firstAt = make(chan struct{}), time.Now()
		return nil, 0
	}
	if left = headStart - time.Since(t.firstAt); left <= 0 {
		return nil, 0
	}
	return t.first, left
}

// overLocked is called when a dial has ended.
func (t *gate) overLocked() {
	if t.first != nil {
		close(t.first)
		t.first = nil
	}
}

// downLocked is called when a dial has found the endpoint down.
func (t *gate) downLocked(err error) {
	t.downErr = err
	close(t.down)
	t.down = make(chan struct{})
}

// follow waits as behindLocked says. It answers false when things have changed meanwhile: that dial has ended, or changed is closed.
func (t *gate) follow(ctx context.Context, first <-chan struct{}, left time.Duration, changed, done <-chan struct{}) (bool, error) {
	if first == nil {
		return true, nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true, nil
	case <-first:
		return false, nil
	case <-changed:
		return false, nil
	case <-done:
		return false, ErrClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// enter waits for a turn to dial, which leave ends. It answers false when changed was closed meanwhile.
func (t *gate) enter(ctx context.Context, changed, done <-chan struct{}) (bool, error) {
	select {
	case t.slots <- struct{}{}:
		return true, nil
	default:
	}
	select {
	case t.slots <- struct{}{}:
	case <-changed:
		return false, nil
	case <-done:
		return false, ErrClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
	select {
	case <-changed:
		t.leave()
		return false, nil
	default:
		return true, nil
	}
}

// leave lets the next one in.
func (t *gate) leave() { <-t.slots }
