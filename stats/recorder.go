package stats

import (
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Closed is why a physical connection was closed.
type Closed int

// The reasons. Their names in Snapshot.ClosedBy stand beside them.
const (
	ClosedBroken    Closed = iota // broken: the server or the network ended it, or its call's context did
	ClosedByCaller                // discarded: given back in the middle of something (a transaction, a session state)
	ClosedOverflow                // overflow: pool_size others were free already
	ClosedRecycle                 // recycle: older than pool_recycle
	ClosedIdle                    // idle: free for longer than pool_idle_timeout, or closed by database/sql's own limits
	ClosedDrain                   // drain: Drain
	ClosedEndpoint                // endpoint: its endpoint went down, lost its role, was fenced, was left for a better one, or had more than its share
	ClosedReclaimed               // reclaimed: taken back from a leak
	ClosedShutdown                // shutdown: db.Close
	numClosed
)

var closedReasons = [numClosed]string{
	"broken", "discarded", "overflow", "recycle", "idle", "drain", "endpoint", "reclaimed", "shutdown",
}

func (c Closed) String() string { return closedReasons[c] }

// ClosedBy counts closed connections by reason: ClosedBy[ClosedIdle] and so on. In JSON it is an object.
type ClosedBy [numClosed]int64

// All yields each reason and its count.
func (c *ClosedBy) All() iter.Seq2[Closed, int64] {
	return func(yield func(Closed, int64) bool) {
		for reason, n := range c {
			if !yield(Closed(reason), n) {
				return
			}
		}
	}
}

// MarshalJSON writes a count for each reason.
func (c ClosedBy) MarshalJSON() ([]byte, error) {
	fields := make([]field, 0, numClosed)
	for reason, n := range c.All() {
		fields = append(fields, field{reason.String(), n})
	}
	return marshalSeconds(fields)
}

// String is "3 idle, 1 recycle".
func (c ClosedBy) String() string {
	var b strings.Builder
	for reason, n := range c.All() {
		if n > 0 {
			if b.Len() > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%d %v", n, reason)
		}
	}
	if b.Len() == 0 {
		return "-"
	}
	return b.String()
}

// Cancel is what became of a call whose context ended while the server was at it.
type Cancel int

// The server was asked to cancel the call, and then one of the others came to pass.
const (
	CancelSent       Cancel = iota
	CancelConfirmed         // it answered that it had
	CancelTooLate           // the call had ended otherwise before
	CancelUnanswered        // no answer within cancel_timeout: the connection was given up
	numCancels
)

// Lost is what a call was told whose connection was lost.
type Lost int

// The two that differ in what became of the work.
const (
	LostOutcome Lost = iota // ErrOutcomeUnknown: nobody knows whether it ran
	LostTx                  // ErrTxLost: its transaction was rolled back, for certain
	numLost
)

// account is how many of something there are now and were ever, in one word, so that the two are of one moment however
// long the reader is kept from its work between them.
type account struct{ word atomic.Uint64 }

// nowBits is room for as many as PostgreSQL can have backends (MAX_BACKENDS); what is left holds 2^46.
const nowBits = 18

func (a *account) enter() { a.word.Add(1<<nowBits + 1) }
func (a *account) leave() { a.word.Add(^uint64(0)) }

func (a *account) read() (now, ever int64) { return split(a.word.Load()) }

func split(word uint64) (now, ever int64) {
	return int64(word & (1<<nowBits - 1)), int64(word >> nowBits)
}

// Recorder counts what happens in one pool. Its zero value is ready; it is safe for concurrent use.
type Recorder struct {
	opened  account      // connections that are open, and that were created
	timeout atomic.Int64 // checkouts that pool_timeout ended
	failed  atomic.Int64 // those that failed otherwise
	cancels [numCancels]atomic.Int64
	lost    [numLost]atomic.Int64
	closed  [numClosed]atomic.Int64
	errors  errorLog

	waits      Histogram // of checkouts that had to wait, when the driver governs
	useTime    Histogram // without the sum, which the connections have
	createTime Histogram

	mu    sync.Mutex // guards what follows. Taken to read, and for a connection's beginning and end, but by no checkout
	conns []*ConnRecorder
	ended ConnRecorder // what connections have counted that are closed
	reset resetPoint
}

// resetPoint is what had been counted at the last Reset.
type resetPoint struct {
	checkins, closed                  int64
	timeouts, failed                  int64
	cancels                           [numCancels]int64
	lost                              [numLost]int64
	closedBy                          ClosedBy
	checkoutTime, useTime, createTime base
}

// CheckoutFailed counts a checkout that got no connection; timeout says that pool_timeout ended it.
func (r *Recorder) CheckoutFailed(timeout bool) {
	if timeout {
		r.timeout.Add(1)
	} else {
		r.failed.Add(1)
	}
}

// Created counts a connection and what it took to open it. What it returns counts its checkouts, and its end.
func (r *Recorder) Created(took time.Duration) *ConnRecorder {
	r.opened.enter()
	r.createTime.Record(took)
	c := &ConnRecorder{recorder: r}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.index = len(r.conns)
	r.conns = append(r.conns, c)
	return c
}

func (r *Recorder) remove(c *ConnRecorder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended.takeOver(c)
	last := len(r.conns) - 1
	r.conns[c.index] = r.conns[last]
	r.conns[c.index].index = c.index
	r.conns[last] = nil
	r.conns = r.conns[:last]
}

// lentLocked is how many connections are in use, and were ever. It looks until nothing has moved between two looks, so that the two are
// of one moment, or a few times where too much moves.
func (r *Recorder) lentLocked() (now, ever int64) {
	const looks = 4
	for look := range looks {
		beforeNow, beforeEver := now, ever
		now, ever = r.ended.lent.read()
		for _, c := range r.conns {
			n, e := c.lent.read()
			now, ever = now+n, ever+e
		}
		if look > 0 && now == beforeNow && ever == beforeEver {
			break
		}
	}
	return now, ever
}

func (r *Recorder) useTimeLocked(ever bool) (c counted) {
	c = r.useTime.counted(ever)
	c.sum = r.ended.held.Load()
	for _, conn := range r.conns {
		c.sum += conn.held.Load()
	}
	return c
}

func (r *Recorder) checkoutTimeLocked(ever bool) (c counted) {
	c = r.waits.counted(ever)
	c.counts[0] += r.ended.atOnce.Load()
	for _, conn := range r.conns {
		c.counts[0] += conn.atOnce.Load()
	}
	return c
}

// CountCancel counts what became of a cancel request.
func (r *Recorder) CountCancel(c Cancel) { r.cancels[c].Add(1) }

// CountLost counts a call that was told of its connection's loss.
func (r *Recorder) CountLost(l Lost) { r.lost[l].Add(1) }

// Now tells the counts that are facts of this moment.
func (r *Recorder) Now() (open, checkedOut int64) {
	open, _ = r.opened.read()
	r.mu.Lock()
	defer r.mu.Unlock()
	checkedOut, _ = r.lentLocked()
	return open, checkedOut
}

// Reset makes the counts start anew: what is open and what is in use counts as created and checked out since.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reset.useTime = r.useTimeLocked(false).base
	r.reset.createTime = r.createTime.counted(false).base
	r.reset.checkoutTime = r.checkoutTimeLocked(false).base
	r.createTime.reset()
	r.waits.reset()
	r.useTime.reset()
	// The totals begin where their parts do, so that they add up from here on too. What is counted is counted in the total
	// first, so none can be negative.
	r.reset.checkins, r.reset.closed = 0, 0
	for _, n := range r.reset.useTime.counts {
		r.reset.checkins += n
	}
	for i := range r.closed {
		r.reset.closedBy[i] = r.closed[i].Load()
		r.reset.closed += r.reset.closedBy[i]
	}
	for i := range r.cancels {
		r.reset.cancels[i] = r.cancels[i].Load()
	}
	for i := range r.lost {
		r.reset.lost[i] = r.lost[i].Load()
	}
	r.reset.failed, r.reset.timeouts = r.failed.Load(), r.timeout.Load()
	r.errors.reset()
}

// Fill writes the pool's part of a snapshot: everything that this Recorder has counted since the last Reset.
func (r *Recorder) Fill(s *Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill(s, &r.reset)
	s.Errors = r.errors.counts(false)
	r.fillTimes(s, &r.reset, false)
}

// FillTotals is Fill without regard to Reset.
func (r *Recorder) FillTotals(s *Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fill(s, &resetPoint{})
	s.Errors = r.errors.counts(true)
	r.fillTimes(s, &resetPoint{}, true)
}

func (r *Recorder) fillTimes(s *Snapshot, since *resetPoint, ever bool) {
	use, create := r.useTimeLocked(ever), r.createTime.counted(ever)
	s.UseTime, s.CreateTime = use.latency(&since.useTime), create.latency(&since.createTime)
	if s.GovernedBy == GovernedByDriver {
		wait := r.checkoutTimeLocked(ever)
		s.CheckoutTime = wait.latency(&since.checkoutTime)
		s.AvgCheckoutTime = s.CheckoutTime.Mean
	}
}

func (r *Recorder) fill(s *Snapshot, since *resetPoint) {
	out, checkouts := r.lentLocked()
	open, created := r.opened.read()
	s.CheckedOut, s.Open = out, open
	s.TotalCheckins = checkouts - out - since.checkins
	s.TotalCheckouts = s.TotalCheckins + out
	s.TotalConnectionsClosed = created - open - since.closed
	s.TotalConnectionsCreated = s.TotalConnectionsClosed + open
	for i := range r.closed {
		s.ClosedBy[i] = r.closed[i].Load() - since.closedBy[i]
	}
	s.CheckedIn = max(0, s.Open-s.CheckedOut)
	cancels := [numCancels]*int64{&s.CancelsSent, &s.CancelsConfirmed, &s.CancelsTooLate, &s.CancelsUnanswered}
	for i, n := range cancels {
		*n = r.cancels[i].Load() - since.cancels[i]
	}
	s.UnknownOutcomes = r.lost[LostOutcome].Load() - since.lost[LostOutcome]
	s.LostTransactions = r.lost[LostTx].Load() - since.lost[LostTx]
	timeouts := r.timeout.Load() - since.timeouts
	s.FailedCheckouts = r.failed.Load() - since.failed + timeouts
	if s.GovernedBy == GovernedByDriver {
		s.CheckoutTimeouts = timeouts
		s.Overflow = max(0, s.Open-s.Size)
		if limit := s.Size + s.MaxOverflow; s.MaxOverflow >= 0 && limit > 0 {
			s.Utilization = float64(s.CheckedOut) / float64(limit)
		}
	}
}
