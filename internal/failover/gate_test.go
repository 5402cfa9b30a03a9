package failover

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateHasSoManySlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		var in atomic.Int32
		for range 3 {
			go func() {
				if turn, err := g.enter(t.Context(), nil, nil); !turn || err != nil {
					t.Errorf("%v, %v", turn, err)
				}
				in.Add(1)
			}()
			synctest.Wait()
		}
		if in.Load() != 2 {
			t.Errorf("%d are in, want 2", in.Load())
		}
		g.leave()
		synctest.Wait()
		if in.Load() != 3 {
			t.Errorf("%d are in after one has left, want 3", in.Load())
		}
	})
}

func TestGateLetsNobodyWaitInVain(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(cancel context.CancelFunc, changed, done chan struct{})
		want error
	}{
		"changed":   {func(_ context.CancelFunc, changed, _ chan struct{}) { close(changed) }, nil},
		"closed":    {func(_ context.CancelFunc, _, done chan struct{}) { close(done) }, ErrClosed},
		"cancelled": {func(cancel context.CancelFunc, _, _ chan struct{}) { cancel() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(1)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				changed, done := make(chan struct{}), make(chan struct{})
				g.slots <- struct{}{}
				first, left := g.behindLocked()
				if first != nil {
					t.Error("the first waits for itself")
				}
				first, left = g.behindLocked()
				var both sync.WaitGroup
				both.Go(func() {
					if turn, err := g.enter(ctx, changed, done); turn || !errors.Is(err, test.want) {
						t.Errorf("for a slot: %v, %v", turn, err)
					}
				})
				both.Go(func() {
					if turn, err := g.follow(ctx, first, left, changed, done); turn || !errors.Is(err, test.want) {
						t.Errorf("behind the first: %v, %v", turn, err)
					}
				})
				synctest.Wait()
				test.end(cancel, changed, done)
				both.Wait()
				g.leave()
				if len(g.slots) != 0 {
					t.Error("a slot was kept")
				}
			})
		})
	}
}

// A slot that comes too late is given back.
func TestGateLooksAgainOnceInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		changed := make(chan struct{})
		g.slots <- struct{}{}
		over := make(chan struct{})
		go func() {
			defer close(over)
			if turn, err := g.enter(t.Context(), changed, nil); turn || err != nil {
				t.Errorf("%v, %v", turn, err)
			}
		}()
		synctest.Wait()
		close(changed)
		g.leave()
		<-over
		if len(g.slots) != 0 {
			t.Error("the slot was kept")
		}
	})
}

func TestGateGivesTheFirstAHeadStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(4)
		began := time.Now()
		if first, _ := g.behindLocked(); first != nil {
			t.Error("the first waits for itself")
		}
		time.Sleep(headStart / 5)
		first, left := g.behindLocked()
		if turn, err := g.follow(t.Context(), first, left, nil, nil); !turn || err != nil || time.Since(began) != headStart {
			t.Errorf("%v, %v after %v; want a turn after %v", turn, err, time.Since(began), headStart)
		}
		if first, _ := g.behindLocked(); first != nil {
			t.Error("the head start is over, and somebody waits")
		}
		g.overLocked()
		g.behindLocked()
		first, left = g.behindLocked()
		go g.overLocked()
		if turn, err := g.follow(t.Context(), first, left, nil, nil); turn || err != nil {
			t.Errorf("%v, %v; want none, as the first has ended", turn, err)
		}
	})
}
