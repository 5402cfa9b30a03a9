package stats

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// ErrorKind is what an error of a pool's was about.
type ErrorKind string

// The kinds of errors that are counted. A statement's error that comes with its rows is not seen.
const (
	ErrorPoolTimeout    ErrorKind = "pool_timeout"    // a checkout that pool_timeout ended
	ErrorCheckout       ErrorKind = "checkout"        // a checkout that failed otherwise
	ErrorDial           ErrorKind = "dial"            // a connection that could not be opened
	ErrorOutcomeUnknown ErrorKind = "outcome_unknown" // a call that ended in ErrOutcomeUnknown
	ErrorTxLost         ErrorKind = "tx_lost"         // a call that ended in ErrTxLost
	ErrorReclaimed      ErrorKind = "reclaimed"       // a call on a connection that was taken back
	ErrorStatement      ErrorKind = "statement"       // the server's, or the end of a call's context
)

// ErrorCount is how often one kind of error came up, with one code. It holds nothing of the error's text.
type ErrorCount struct {
	Kind ErrorKind `json:"kind"`
	// Code is the server's SQLSTATE. Where the server said nothing it is deadline, refused, unreachable, dns, reset, broken, closed, or
	// other. Where managedpg has closed the connection it is fenced, moved or hung (see failover.DropKind), and sync_wait where a COMMIT's wait
	// for its synchronous standby was cut short. Canceled is what the caller has ended by its context, whatever the server said.
	Code  string    `json:"code"`
	Count int64     `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// String is "3 statement 23505, last at 12:04:31".
func (c ErrorCount) String() string {
	return fmt.Sprintf("%d %s %s, last at %s", c.Count, c.Kind, c.Code, c.Last.Format(time.TimeOnly))
}

// mostErrors bounds the kinds and codes that are told apart. A pool has some dozens.
const mostErrors = 100

type errorKey struct {
	kind ErrorKind
	code string
}

type errorEntry struct {
	ErrorCount           // since the last Reset
	before     int64     // until then
	since      time.Time // the first ever
}

// errorLog counts errors by kind and code.
type errorLog struct {
	mu  sync.Mutex
	all map[errorKey]*errorEntry
}

func (l *errorLog) count(kind ErrorKind, code string) {
	now := time.Now().Round(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	key := errorKey{kind, code}
	if l.all[key] == nil && len(l.all) >= mostErrors {
		key.code = "other"
	}
	e := l.all[key]
	if e == nil {
		if l.all == nil {
			l.all = make(map[errorKey]*errorEntry)
		}
		e = &errorEntry{ErrorCount: ErrorCount{Kind: key.kind, Code: key.code}, since: now}
		l.all[key] = e
	}
	if e.Count == 0 {
		e.First = now
	}
	e.Count++
	e.Last = now
}

func (l *errorLog) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		e.before += e.Count
		e.Count = 0
	}
}

// counts are those since the last Reset, or ever, the latest first.
func (l *errorLog) counts(ever bool) []ErrorCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []ErrorCount
	for _, e := range l.all {
		c := e.ErrorCount
		if ever {
			c.Count, c.First = c.Count+e.before, e.since
		}
		if c.Count > 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b ErrorCount) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Code, b.Code))
	})
	return all
}

// CountError counts an error by its kind and code; see [ErrorCount].
func (r *Recorder) CountError(kind ErrorKind, code string) { r.errors.count(kind, code) }

// errorCounts are a Snapshot's Errors.
type errorCounts []ErrorCount

// MarshalJSON writes an array, never null.
func (c errorCounts) MarshalJSON() ([]byte, error) { return json.Marshal(append([]ErrorCount{}, c...)) }
