package stats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Governors of a pool, as Snapshot.GovernedBy names them.
const (
	GovernedByDriver = "driver"       // pool_size is set: the driver owns the limits and the queue
	GovernedBySQL    = "database/sql" // it is not: SetMaxOpenConns and its like do
)

// Snapshot is a pool's figures at one moment. Counts are since the pool was opened or its ResetStats; these hold at
// every moment, under load too:
//
//	TotalCheckouts = TotalCheckins + CheckedOut
//	TotalConnectionsCreated = TotalConnectionsClosed + Open
//
// What a driver can't know when database/sql governs (Size, MaxOverflow, MinIdle, Overflow, Waiting, Utilization, the queue and the dials,
// CheckoutTimeouts, AvgCheckoutTime, CheckoutTime) is 0 here then and left out of the JSON; db.Stats() has it. When the
// driver governs it is the other way round: db.Stats() counts waiters as InUse and never sees an idle connection.
type Snapshot struct { // More than 15 fields: one for each figure.
	Name       string
	GovernedBy string

	Size        int64   // pool_size
	MaxOverflow int64   // max_overflow; -1: no limit
	MinIdle     int64   // pool_min_idle
	Open        int64   // physical connections, in use or free
	CheckedOut  int64   // in use
	CheckedIn   int64   // free
	Overflow    int64   // open beyond Size
	Waiting     int64   // checkouts that wait for a connection
	Utilization float64 // CheckedOut / (Size + MaxOverflow), 0..1; 0 without a limit

	// The pool's queue and its dials, when the driver governs.
	QueueStanding time.Duration // for how long those who came last have been served first, as the queue doesn't drain; 0: they aren't
	NewestFirst   int64         // checkouts served in that way
	Dialling      int64         // dials under way
	OrphanedDials int64         // dials that succeeded when whoever they were begun for had gone
	Paused        time.Duration // for how long Pause has been in force; 0: it isn't

	TotalCheckouts   int64
	TotalCheckins    int64
	FailedCheckouts  int64 // checkouts that ended without a connection, for whatever reason
	CheckoutTimeouts int64 // those of them that pool_timeout ended

	TotalConnectionsCreated int64
	TotalConnectionsClosed  int64
	ClosedBy                ClosedBy // by reason

	AvgCheckoutTime time.Duration // CheckoutTime's mean
	CheckoutTime    Latency       // from asking for a connection to having it
	UseTime         Latency       // from having it to giving it back
	CreateTime      Latency       // from dialling to a usable connection

	CancelsSent       int64 // calls whose context ended while the server was at them, so that it was asked to cancel them
	CancelsConfirmed  int64 // of those, the server said that it had
	CancelsTooLate    int64 // the call had ended otherwise before
	CancelsUnanswered int64 // no answer within cancel_timeout: the connection was given up

	UnknownOutcomes  int64 // calls that ended in ErrOutcomeUnknown
	LostTransactions int64 // calls that ended in ErrTxLost; the Rollback after one is a call too

	Errors []ErrorCount // by kind and code, the latest first

	LeakedConnections    int64 // held for longer than leak_threshold now
	TotalLeaks           int64
	ReclaimedConnections int64
	LongestHolders       []Holder // who has held a connection longest by now, the longest first: three at most

	Endpoint      string // where new connections go; never a password
	IsPrimary     bool   // that is the first configured one
	FailoverCount int64
	FailbackCount int64
}

// Holder is somebody who has a connection now.
type Holder struct {
	Caller string        // "file:line function" of who took it; empty where that isn't known
	Held   time.Duration // for how long; in JSON in seconds
}

// MarshalJSON writes the time in seconds.
func (h Holder) MarshalJSON() ([]byte, error) {
	return marshalSeconds([]field{{"caller", h.Caller}, {"held", h.Held}})
}

func (h Holder) String() string {
	if h.Caller == "" {
		return fmt.Sprintf("%v by an unknown caller", round(h.Held))
	}
	return fmt.Sprintf("%v by %s", round(h.Held), h.Caller)
}

// field is one name and value of a JSON object, in the order they are written.
type field struct {
	name  string
	value any
}

// MarshalJSON writes the figures in snake_case, durations in seconds, without those that database/sql's rule hides.
func (s Snapshot) MarshalJSON() ([]byte, error) { return marshalSeconds(s.fields()) }

func (s Snapshot) fields() []field {
	f := []field{{"name", s.Name}, {"governed_by", s.GovernedBy}}
	governed := s.GovernedBy == GovernedByDriver
	if governed {
		f = append(f, field{"size", s.Size}, field{"max_overflow", s.MaxOverflow},
			field{"min_idle", s.MinIdle})
	}
	f = append(f, field{"open", s.Open}, field{"checked_out", s.CheckedOut}, field{"checked_in", s.CheckedIn})
	if governed {
		f = append(f, field{"overflow", s.Overflow}, field{"waiting", s.Waiting}, field{"utilization", s.Utilization},
			field{"queue_standing", s.QueueStanding}, field{"newest_first", s.NewestFirst}, field{"dialling", s.Dialling},
			field{"orphaned_dials", s.OrphanedDials}, field{"paused", s.Paused})
	}
	f = append(f, field{"total_checkouts", s.TotalCheckouts}, field{"total_checkins", s.TotalCheckins},
		field{"failed_checkouts", s.FailedCheckouts})
	if governed {
		f = append(f, field{"checkout_timeouts", s.CheckoutTimeouts})
	}
	f = append(f, field{"total_connections_created", s.TotalConnectionsCreated},
		field{"total_connections_closed", s.TotalConnectionsClosed}, field{"closed_by", s.ClosedBy})
	if governed {
		f = append(f, field{"avg_checkout_time", s.AvgCheckoutTime}, field{"checkout_time", s.CheckoutTime})
	}
	return append(f, field{"use_time", s.UseTime}, field{"create_time", s.CreateTime},
		field{"cancels_sent", s.CancelsSent}, field{"cancels_confirmed", s.CancelsConfirmed},
		field{"cancels_too_late", s.CancelsTooLate}, field{"cancels_unanswered", s.CancelsUnanswered},
		field{"unknown_outcomes", s.UnknownOutcomes}, field{"lost_transactions", s.LostTransactions},
		field{"errors", errorCounts(s.Errors)},
		field{"leaked_connections", s.LeakedConnections}, field{"total_leaks", s.TotalLeaks},
		field{"reclaimed_connections", s.ReclaimedConnections},
		field{"longest_holders", append([]Holder{}, s.LongestHolders...)}, // never null
		field{"endpoint", s.Endpoint}, field{"is_primary", s.IsPrimary},
		field{"failover_count", s.FailoverCount}, field{"failback_count", s.FailbackCount})
}

func marshalSeconds(fields []field) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fields {
		if d, ok := f.value.(time.Duration); ok {
			f.value = d.Seconds()
		}
		v, err := json.Marshal(f.value)
		if err != nil {
			return nil, fmt.Errorf("stats: %s: %w", f.name, err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", f.name, v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// String is a table a person can read: a line for each figure.
func (s Snapshot) String() string {
	var b bytes.Buffer
	for _, f := range s.fields() {
		switch v := f.value.(type) {
		case time.Duration:
			fmt.Fprintf(&b, "%-26s %v\n", f.name, round(v))
		case float64:
			fmt.Fprintf(&b, "%-26s %.0f %%\n", f.name, 100*v)
		case []Holder:
			fmt.Fprintf(&b, "%-26s %s\n", f.name, inLines(v))
		case errorCounts:
			fmt.Fprintf(&b, "%-26s %s\n", f.name, inLines(v))
		default:
			fmt.Fprintf(&b, "%-26s %v\n", f.name, v)
		}
	}
	return b.String()
}

// inLines writes one a line, in the column of the values.
func inLines[T fmt.Stringer](all []T) string {
	if len(all) == 0 {
		return "-"
	}
	var lines []string
	for _, one := range all {
		lines = append(lines, one.String())
	}
	return strings.Join(lines, fmt.Sprintf("\n%-26s ", ""))
}

// round keeps three figures or so.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	default:
		return d.Round(10 * time.Nanosecond)
	}
}
