package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"runtime"
	"sync/atomic"

	"github.com/managedpg/managedpg/internal/single"
)

// life is what a logical connection may be used for. database/sql serialises its calls; Reclaim, the pool's sweeps and those who ask
// about a COMMIT come from elsewhere, and only these methods keep them apart.
type life struct {
	state  single.State
	shared bool                          // Reclaim may come, so calls in progress are marked; set when made
	back   atomic.Pointer[chan struct{}] // closed when it is back from who borrowed it, nil if nobody has
	why    error                         // what calls are told; written before state is lifeFailed or lifeGone
}

// States of a life, and what ends each.
const (
	lifeParked     int64 = iota // nobody's: not used yet, or in sql.DB's free list. Its next checkout or call, lend or a sweep
	lifeEmpty                   // in sql.DB's free list, without a physical connection. Its next checkout
	lifeHeld                    // checked out. A call, its check-in, or Reclaim
	lifeInCall                  // checked out, a call is in progress. The call's end
	lifeReclaiming              // Reclaim is looking at it. Reclaim's verdict
	lifeLent                    // parked, and lent to a LostError's Resolve. Its return
	lifeFailed                  // the checkout has failed, as each call is told. Its check-in
	lifeGone                    // closed or reclaimed
)

func (l *life) is(state int64) bool { return l.state.Load() == state }

func (l *life) held() bool    { return l.is(lifeHeld) }
func (l *life) parked() bool  { return l.is(lifeParked) }
func (l *life) isEmpty() bool { return l.is(lifeEmpty) }
func (l *life) lent() bool    { return l.is(lifeLent) }
func (l *life) gone() bool    { return l.is(lifeGone) }

// unmade says that the checkout has yet to be made, or has failed.
func (l *life) unmade() bool { return l.is(lifeParked) || l.is(lifeFailed) }

// wasReclaimed says, of one that is gone, that Reclaim has ended it.
func (l *life) wasReclaimed() bool { return l.why != nil }

// begin marks a checked out connection as at work until end; false if it isn't checked out, or at work already. Only Reclaim would
// care, so where it can't come nothing is marked.
func (l *life) begin() bool {
	if l.shared {
		return l.move(lifeHeld, lifeInCall)
	}
	return l.held()
}

// obstacle is what keeps a call from beginning, once it is back from who borrowed it: it is parked, and its checkout has to be made
// first; or the error that the call is told; or nothing any more.
func (l *life) obstacle(ctx context.Context) (parked bool, err error) {
	switch l.state.Load() {
	case lifeParked:
		return true, nil
	case lifeLent:
		return false, l.awaitBack(ctx)
	case lifeInCall:
		return false, errTwoCalls
	case lifeFailed:
		return false, l.why
	case lifeGone:
		if l.why != nil {
			return false, l.why
		}
		return false, driver.ErrBadConn
	case lifeEmpty:
		return false, driver.ErrBadConn
	default:
		return false, nil
	}
}

var errTwoCalls = errors.New("managedpg: connection used by two goroutines at once")

// beginParked is begin for one that is parked; hold or park follows.
func (l *life) beginParked() bool {
	for !l.move(lifeParked, lifeInCall) {
		if !l.is(lifeParked) {
			return false
		}
	}
	return true
}

func (l *life) end() {
	if l.shared {
		l.state.Store(lifeHeld)
	}
}

// move changes the state, if it is the given one once Reclaim has had its look.
func (l *life) move(from, to int64) bool {
	for {
		switch was := l.state.Load(); was {
		case from:
			if l.state.CompareAndSwap(from, to) {
				return true
			}
		case lifeReclaiming:
			runtime.Gosched()
		default:
			return false
		}
	}
}

// unpark takes a parked connection, once it is back from who borrowed it, if that is before ctx ends. hold or park follows.
func (l *life) unpark(ctx context.Context) bool {
	return l.state.CompareAndSwap(lifeParked, l.working()) || l.unparkLater(ctx)
}

func (l *life) unparkLater(ctx context.Context) bool {
	for !l.move(lifeParked, l.working()) {
		switch l.state.Load() {
		case lifeParked:
		case lifeLent:
			if l.awaitBack(ctx) != nil {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (l *life) working() int64 {
	if l.shared {
		return lifeInCall
	}
	return lifeHeld
}

// hold begins a checkout. To look costs less than to write.
func (l *life) hold() {
	if l.state.Load() != lifeHeld {
		l.state.Store(lifeHeld)
	}
}

// park ends one, or what unpark began.
func (l *life) park() { l.state.Store(lifeParked) }

// empty ends the checkout of a connection that has given its physical one back.
func (l *life) empty() { l.state.Store(lifeEmpty) }

// fail makes calls be told why there is no checkout.
func (l *life) fail(why error) {
	l.why = why
	l.state.Store(lifeFailed)
}

// recover ends what fail began.
func (l *life) recover() bool {
	if !l.is(lifeFailed) {
		return false
	}
	l.why = nil // whoever uses it once it is gone must not be told
	return l.state.CompareAndSwap(lifeFailed, lifeEmpty)
}

// endUnused ends a checkout that has failed, or was never made; false: it isn't to be kept. One that was never made is still to be made by the
// first call, as database/sql may hand the connection on without a reset.
func (l *life) endUnused() bool {
	return l.recover() || l.is(lifeParked) || l.isEmpty()
}

// sweep closes a connection that is parked.
func (l *life) sweep() bool { return l.state.CompareAndSwap(lifeParked, lifeGone) }

// reclaim keeps the calls of a checkout out until release or reclaimed.
func (l *life) reclaim() bool { return l.state.CompareAndSwap(lifeHeld, lifeReclaiming) }

func (l *life) spare() { l.state.Store(lifeHeld) }

func (l *life) reclaimed(why error) {
	l.why = why
	l.state.Store(lifeGone)
}

// lend takes a parked connection.
func (l *life) lend() bool {
	back := make(chan struct{})
	if !l.back.CompareAndSwap(nil, &back) {
		return false
	}
	if l.state.CompareAndSwap(lifeParked, lifeLent) {
		return true
	}
	l.back.Store(nil)
	close(back)
	return false
}

// takeBack ends what lend began. False: it was closed meanwhile, and is the borrower's to end.
func (l *life) takeBack() bool {
	back := l.back.Load()
	parked := l.state.CompareAndSwap(lifeLent, lifeParked)
	l.back.Store(nil)
	close(*back)
	return parked
}

// awaitBack waits until a connection that was lent is back.
func (l *life) awaitBack(ctx context.Context) error {
	back := l.back.Load()
	if back == nil {
		return nil
	}
	select {
	case <-*back:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends it, and tells what it was: lifeHeld and lifeParked have a physical connection to be ended now, lifeLent has one that is
// the borrower's to end.
func (l *life) close() (was int64) {
	for {
		switch was := l.state.Load(); was {
		case lifeGone:
			return was
		case lifeInCall, lifeReclaiming:
			runtime.Gosched()
		default:
			if l.state.CompareAndSwap(was, lifeGone) {
				return was
			}
		}
	}
}
