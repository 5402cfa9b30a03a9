package stats

import (
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
	ClosedEndpoint                // endpoint: its endpoint went down, lost its role, was fenced, or was left for a better one
	ClosedReclaimed               // reclaimed: taken back from a leak
	ClosedShutdown                // shutdown: db.Close
	numClosed
)

var closedReasons = [numClosed]string{
	"broken", "discarded", "overflow", "recycle", "idle", "drain", "endpoint", "reclaimed", "shutdown",
}

func (c Closed) String() string { return closedReasons[c] }

// Recorder counts what happens in one pool. Its zero value is ready; it is safe for concurrent use.
//
// Only what can't be derived is kept: connections in use are checkouts less check-ins, open ones are those created less
// those closed, and check-ins are the durations in UseTime. So the equations in Snapshot's comment hold by construction.
type Recorder struct {
	checkouts atomic.Int64
	failed    atomic.Int64
	timeouts  atomic.Int64
	waiting   atomic.Int64
	closed    [numClosed]atomic.Int64

	checkoutTime Histogram // when the driver governs
	useTime      Histogram
	createTime   Histogram

	mu    sync.Mutex // guards reset; never taken by what is counted
	reset resetPoint
}

// resetPoint is what had been counted at the last Reset.
type resetPoint struct {
	checkins, failed, timeouts        int64
	closed                            [numClosed]int64
	checkoutTime, useTime, createTime base
}

// CheckedOut counts a checkout.
func (r *Recorder) CheckedOut() { r.checkouts.Add(1) }

// CheckedOutAfter counts a checkout of a governed pool and what it took.
func (r *Recorder) CheckedOutAfter(wait time.Duration) {
	r.checkouts.Add(1)
	r.checkoutTime.Record(wait)
}

// CheckedIn counts a check-in and how long the connection was held.
func (r *Recorder) CheckedIn(held time.Duration) { r.useTime.Record(held) }

// CheckoutFailed counts a checkout that got no connection; timeout says that pool_timeout ended it.
func (r *Recorder) CheckoutFailed(timeout bool) {
	r.failed.Add(1)
	if timeout {
		r.timeouts.Add(1)
	}
}

// Waiting adds n to the number of checkouts that wait.
func (r *Recorder) Waiting(n int64) { r.waiting.Add(n) }

// Created counts a connection and what it took to open it.
func (r *Recorder) Created(took time.Duration) { r.createTime.Record(took) }

// Closed counts a connection's end.
func (r *Recorder) Closed(why Closed) { r.closed[why].Add(1) }

// Now tells the counts that are facts of this moment. Each is read after what it is subtracted from, so none is
// negative.
func (r *Recorder) Now() (open, checkedOut, waiting int64) {
	var closed int64
	for i := range r.closed {
		closed += r.closed[i].Load()
	}
	open = r.createTime.Count() - closed
	checkins := r.useTime.Count()
	return open, r.checkouts.Load() - checkins, r.waiting.Load()
}

// Reset makes the counts start anew: what is open and what is in use counts as created and checked out since.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.useTime.reset(&r.reset.useTime)
	r.createTime.reset(&r.reset.createTime)
	r.checkoutTime.reset(&r.reset.checkoutTime)
	r.reset.checkins = sum(&r.reset.useTime.counts)
	r.reset.failed, r.reset.timeouts = r.failed.Load(), r.timeouts.Load()
	for i := range r.closed {
		r.reset.closed[i] = r.closed[i].Load()
	}
}

// Fill writes the pool's part of a snapshot: everything that this Recorder counts.
func (r *Recorder) Fill(s *Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.ClosedBy = make(map[string]int64, numClosed)
	var closedEver int64
	for i := range r.closed {
		n := r.closed[i].Load()
		closedEver += n
		n -= r.reset.closed[i]
		s.TotalConnectionsClosed += n
		s.ClosedBy[closedReasons[i]] = n
	}
	s.UseTime = r.useTime.latency(&r.reset.useTime)
	s.CreateTime = r.createTime.latency(&r.reset.createTime)
	s.Open = s.CreateTime.Count + sum(&r.reset.createTime.counts) - closedEver
	s.TotalConnectionsCreated = s.TotalConnectionsClosed + s.Open
	s.TotalCheckins = s.UseTime.Count
	s.CheckedOut = r.checkouts.Load() - r.reset.checkins - s.TotalCheckins
	s.TotalCheckouts = s.TotalCheckins + s.CheckedOut
	s.CheckedIn = max(0, s.Open-s.CheckedOut)
	s.FailedCheckouts = r.failed.Load() - r.reset.failed
	if s.GovernedBy == GovernedByDriver {
		s.CheckoutTimeouts = r.timeouts.Load() - r.reset.timeouts
		s.Waiting = r.waiting.Load()
		s.CheckoutTime = r.checkoutTime.latency(&r.reset.checkoutTime)
		s.AvgCheckoutTime = s.CheckoutTime.Mean
		s.Overflow = max(0, s.Open-s.Size)
		if limit := s.Size + s.MaxOverflow; s.MaxOverflow >= 0 && limit > 0 {
			s.Utilization = float64(s.CheckedOut) / float64(limit)
		}
	}
}

func sum(counts *[numBuckets]int64) (n int64) {
	for _, c := range counts {
		n += c
	}
	return n
}
