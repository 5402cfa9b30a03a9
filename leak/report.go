package leak

import (
	"encoding/json"
	"fmt"
	"time"
)

// Report describes one checkout: one that is held too long, or one that a full pool names as its longest holder.
type Report struct {
	// Pool is the name of the pool the connection belongs to.
	Pool string `json:"pool"`
	// ConnectionID numbers the physical connections of a pool, from 1, in the order they were opened.
	ConnectionID uint64 `json:"connection_id"`
	// BackendPID is the server's process for the connection (pg_stat_activity.pid), 0 where it isn't known.
	BackendPID uint32 `json:"backend_pid"`
	// Endpoint is the server: host:port/dbname, never a password.
	Endpoint string `json:"endpoint"`
	// CheckedOutAt is when the connection was taken.
	CheckedOutAt time.Time `json:"checked_out_at"`
	// Duration is how long it has been held; in JSON in seconds.
	Duration time.Duration `json:"duration"`
	// Caller is "file:line function" of the first frame that is neither database/sql's nor managedpg's nor an ORM's.
	// It is empty when the stack isn't known: leak_stack_depth is 0, or too small to reach beyond database/sql.
	Caller string `json:"caller"`
	// Stack holds the frames from Caller's side of database/sql outwards, innermost first, each "file:line function".
	Stack []string `json:"stack"`
	// Labels are the pprof labels of the context the connection was checked out with.
	Labels map[string]string `json:"labels,omitempty"`
	// Reclaimed says that the connection was taken back by force (leak_reclaim_after).
	Reclaimed bool `json:"reclaimed"`
}

// String is the report in one line, without the stack.
func (r Report) String() string {
	caller := r.Caller
	if caller == "" {
		caller = "unknown caller"
	}
	return fmt.Sprintf("%s: connection %d (backend pid %d on %s) held for %s",
		caller, r.ConnectionID, r.BackendPID, r.Endpoint, r.Duration.Round(time.Millisecond))
}

// MarshalJSON writes the duration in seconds.
func (r Report) MarshalJSON() ([]byte, error) {
	type plain Report
	return json.Marshal(struct {
		plain
		Duration float64 `json:"duration"`
	}{plain(r), r.Duration.Seconds()})
}
