package leak

import (
	"context"
	"runtime/pprof"
	"sync/atomic"
)

type longKey struct{}

// longs is set by the first LongCheckout, so that programs without any don't look for one in each context.
var longs atomic.Bool

// LongCheckout returns a context for a checkout that is meant to be long, as LISTEN's is: it is never reported and
// never reclaimed. It still counts as a holder in [Tracker.Longest] and in the profile.
func LongCheckout(ctx context.Context) context.Context {
	longs.Store(true)
	return context.WithValue(ctx, longKey{}, true)
}

func isLong(ctx context.Context) bool {
	return longs.Load() && ctx.Value(longKey{}) != nil
}

// A checkout must not keep its context: it would pin whatever hangs off a request, and some contexts (gin's,
// fasthttp's) are used again for another request afterwards. Nor may it copy the labels, which allocates. So it keeps
// what runtime/pprof itself stores in the context, an immutable label set, under a key that is learned by letting
// ForLabels ask for it.
var labelKey = func() any {
	probe := keyProbe{Context: context.Background(), key: new(any)}
	pprof.ForLabels(probe, func(string, string) bool { return false })
	return *probe.key
}()

type keyProbe struct {
	context.Context
	key *any
}

func (p keyProbe) Value(key any) any {
	*p.key = key
	return nil
}

// labelsOf returns what labelMap makes a map of.
func labelsOf(ctx context.Context) any {
	return ctx.Value(labelKey)
}

func labelMap(set any) map[string]string {
	if set == nil {
		return nil
	}
	labels := make(map[string]string)
	pprof.ForLabels(labelContext{context.Background(), set}, func(key, value string) bool {
		labels[key] = value
		return true
	})
	if len(labels) == 0 {
		return nil
	}
	return labels
}

type labelContext struct {
	context.Context
	set any
}

func (c labelContext) Value(any) any { return c.set }
