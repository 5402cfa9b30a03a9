package sim

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/sqlstate"
)

// asksItself says that lib/pq may have sent its own cancel requests: ours are off, or can't be sent as TLS hides the key, or several came
// to nothing, as base's unansweredLimit has it.
func (w *world) asksItself() bool {
	return w.plan.pq && (slices.Contains(w.plan.options, "cancel_timeout=0") || w.plan.tls || w.unanswered >= 3)
}

// check holds what callers were told against what the servers have.
func (w *world) check() {
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.strange {
		w.fail("not to be sent: %s", s)
	}
	balance := make(map[int64]int64)
	for _, row := range slices.Sorted(maps.Keys(w.calls)) {
		call, n := w.calls[row], c.rows[row]
		reads := call.kind == "read"
		switch {
		case call.told == toldNothing:
			w.fail("call %d never ended", row)
		case n > 1:
			w.fail("call %d: doubled", row)
		case call.told == toldOK && n == 0 && !reads:
			w.fail("call %d: lost", row)
		case call.told == toldNot && n > 0:
			w.fail("call %d: told %v, and done", row, call.err)
		}
		// Connections that there are go on, whatever new ones meet.
		if w.plan.gentle && !w.plan.ends && !(reads && w.plan.standby) && (call.told == toldUnknown || errors.Is(call.err, managedpg.ErrTxLost)) {
			w.fail("call %d: %v, and only new connections met faults", row, call.err)
		}
		if n > 0 {
			balance[call.from] -= call.sum
			balance[call.to] += call.sum
		}
		// cancel_timeout, and what Resolve is given when the context has ended, and once more.
		most := call.limit + 1500*time.Millisecond + resolves
		if w.asksItself() {
			most += 800 * time.Millisecond // lib/pq has wire.CloseLimit for its own cancel request
		}
		if took := call.ended.Sub(call.began); took > most {
			w.fail("call %d took %v, its context %v", row, took, call.limit)
		}
		if sqlstate.Of(call.err) == sqlstate.QueryCanceled && call.ended.Before(call.began.Add(call.limit)) {
			w.fail("call %d was cancelled for another: %v", row, call.err)
		}
		if call.began.Before(w.mended.Add(settles)) || call.brief || call.kind == "busy" || w.plan.allLate() {
			continue
		}
		if call.told != toldOK && !w.plan.stays && !w.closed {
			w.fail("call %d: %v, %v after the last fault", row, call.err, call.began.Sub(w.mended))
		}
	}
	for a := range int64(accounts) {
		if balance[a] != c.balance[a] {
			w.fail("account %d has %d, of %d", a, c.balance[a], balance[a])
		}
	}
}
