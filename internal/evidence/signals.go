package evidence

import "sync/atomic"

// Signals are what has been concluded about a server, for the connections that lead there: they are looked at in every checkout and
// check-in, so they stand side by side.
type Signals struct {
	// Epoch, which only who concludes writes, changes when connections made before are no longer to be used: the endpoint went down, lost its role, was
	// fenced, or was left for a better one. Load it before the dial, keep that with the connection, and compare.
	Epoch atomic.Uint64
	// Surplus is how many of the connections that lead there are to be closed, because others have too few. Whoever checks one in,
	// or finds it free, takes one off and closes it.
	Surplus atomic.Int64
	// Load is how many connections lead there. Whoever decides where a dial goes adds one that was made; whoever closes it takes it off.
	Load atomic.Int64
	// Hung is true while probes and dials get no answer: a connection that there is already may be as silent, so ask before it is
	// used again. Whoever gets an answer then says so here.
	Hung atomic.Bool
}
