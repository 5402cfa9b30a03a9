package conn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/usercode"
)

// addressMemory is for how long an address that wouldn't do is tried after the others.
const addressMemory = 30 * time.Second

// addresses is what is known of those behind an endpoint's name.
type addresses struct {
	mu    sync.Mutex // guards what follows
	known []string   // what the resolver said last
	good  string     // the last one that would do
	bad   map[string]time.Duration
}

// each tries the addresses behind the endpoint's name until one will do: the last that would first, then in the resolver's order, those last
// that wouldn't do a moment ago. Each gets an equal share of what is left of the time, for the dial and all that follows, so that
// one which accepts and says nothing leaves some to the others. A name with one address, or none, is tried once.
func (e *Endpoint) each(ctx context.Context, try func(context.Context) error) error {
	r := &round{of: &e.addresses}
	var before error
	for {
		err := r.try(ctx, try)
		if err == nil {
			e.addresses.liked(r.current)
			return nil
		}
		theirs, hook := err.(*usercode.Error)
		if ctx.Err() != nil || r.left == 0 || hook && !theirs.Next {
			if before != nil && !hook {
				err = fmt.Errorf("%w (another address before: %v)", err, before)
			}
			return err
		}
		e.addresses.disliked(r.current)
		before = err
	}
}

func (a *addresses) liked(address string) {
	if address == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.good = address
	delete(a.bad, address)
}

func (a *addresses) disliked(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bad == nil {
		a.bad = make(map[string]time.Duration)
	}
	a.bad[address] = now() + addressMemory
	for old, until := range a.bad { // names may lead elsewhere each hour
		if until < now() {
			delete(a.bad, old)
		}
	}
}

// found takes in what the resolver says, and answers in the order in which to try. What was known stays in use when it fails.
func (a *addresses) found(all []string, err error) ([]string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && len(a.known) == 0 {
		return nil, err
	}
	if err == nil {
		a.known = slices.Compact(slices.Clone(all))
	}
	order := slices.Clone(a.known)
	rank := func(address string) int {
		switch {
		case a.bad[address] > now():
			return 2
		case address == a.good:
			return 0
		default:
			return 1
		}
	}
	slices.SortStableFunc(order, func(a, b string) int { return rank(a) - rank(b) })
	return order, nil
}

// round is one call of each. Its context tells the dial which address is meant.
type round struct {
	of      *addresses
	tried   []string
	current string // "" before the name was resolved
	left    int    // still to be tried
	cancel  context.CancelCauseFunc
	timer   *time.Timer
}

type roundKey struct{}

var errAddressShare = errors.New("managedpg: no answer within this address' share of the time")

func (r *round) try(ctx context.Context, try func(context.Context) error) error {
	r.current = ""
	tryCtx, cancel := context.WithCancelCause(context.WithValue(ctx, roundKey{}, r))
	defer cancel(nil)
	r.cancel = cancel
	err := try(tryCtx)
	if r.timer != nil {
		r.timer.Stop()
	}
	if err != nil && ctx.Err() == nil && context.Cause(tryCtx) == errAddressShare {
		err = fmt.Errorf("%w: %w", errAddressShare, context.DeadlineExceeded)
	}
	return err
}

// addressWillDo: the server is ready, and what comes now is the user's time, not the address'.
func addressWillDo(ctx context.Context) {
	if r, ok := ctx.Value(roundKey{}).(*round); ok && r.timer != nil {
		r.timer.Stop()
	}
}

// resolve picks one of the addresses that were found. A base may ask more than once in a try (with TLS, and without).
func resolve(ctx context.Context, all []string, err error) ([]string, error) {
	r, ok := ctx.Value(roundKey{}).(*round)
	if !ok {
		return all, err
	}
	if r.current != "" {
		return []string{r.current}, nil
	}
	order, err := r.of.found(all, err)
	if err != nil {
		return nil, err
	}
	r.left = 0
	for _, address := range order {
		switch {
		case slices.Contains(r.tried, address):
		case r.current == "":
			r.current = address
		default:
			r.left++
		}
	}
	if r.current == "" {
		return order, nil
	}
	r.tried = append(r.tried, r.current)
	if deadline, limited := ctx.Deadline(); limited && r.left > 0 {
		cancel := r.cancel
		r.timer = time.AfterFunc(time.Until(deadline)/time.Duration(r.left+1), func() { cancel(errAddressShare) })
	}
	return []string{r.current}, nil
}
