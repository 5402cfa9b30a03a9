package failover

import (
	"encoding/json"
	"time"
)

// State is what is known of an endpoint's availability. What moves it:
//
//	from          to             by
//	any           Up             a probe or dial that succeeded; one answered by "no room now" (53xxx), which ranks it last
//	Unknown, Up   Suspect        a call's connection lost, or its deadline passed; a session ended by an administrator
//	any           Down           a probe or dial that met nobody, or no answer within its own limit
//	any           Misconfigured  a probe or dial that was refused by a server that is alive
//
// A call alone never makes an endpoint Down, and only a probe or dial takes it out of Down and Misconfigured. When the
// endpoints are not probed, a Suspect one that stays silent for a whole dial again is Down.
type State string

const (
	// Unknown: nothing has been seen of it yet.
	Unknown State = "unknown"
	// Up: the last probe or dial succeeded.
	Up State = "up"
	// Suspect: a call on it failed or ran into its deadline; a probe is on its way. It is still used, but a checkout
	// that gets no answer from it shortly goes to another usable one meanwhile.
	Suspect State = "suspect"
	// Down: a probe or dial failed. It isn't used until a probe succeeds.
	Down State = "down"
	// Misconfigured: it is alive but refuses us (wrong password, no such database, no permission).
	Misconfigured State = "misconfigured"
)

// Role is what a session on an endpoint may do.
type Role string

const (
	// RoleUnknown: not seen yet, or the server lacks the functions that tell.
	RoleUnknown Role = "unknown"
	// ReadWrite: not in recovery, and transactions are read-write by default.
	ReadWrite Role = "read-write"
	// ReadOnly: in recovery (a standby), or read-only by default.
	ReadOnly Role = "read-only"
)

// Health is the result of the probes of a pool's endpoints, since start or ResetStats.
type Health struct {
	// Healthy: the current endpoint is up. One that nobody has dialled or probed yet isn't; its State is Unknown, and CheckNow asks.
	Healthy      bool  `json:"healthy"`
	TotalChecks  int64 `json:"total_checks"`
	FailedChecks int64 `json:"failed_checks"`
	// SuccessRate is in percent of TotalChecks; 100 before the first check.
	SuccessRate float64 `json:"success_rate"`
	// ResponseTime is the mean of the probes that succeeded; in JSON in seconds.
	ResponseTime time.Duration    `json:"response_time"`
	Endpoints    []EndpointHealth `json:"endpoints"`
}

// EndpointHealth is what the probes know of one endpoint.
type EndpointHealth struct { // More than 15 fields: one for each figure.
	Endpoint string `json:"endpoint"`
	State    State  `json:"state"`
	Role     Role   `json:"role"`
	// Timeline is the server's WAL timeline; 0 where it can't be read (then nothing is fenced).
	Timeline int64 `json:"timeline"`
	// Fenced: another endpoint of the same system is on a higher timeline, so this one isn't written to.
	Fenced bool `json:"fenced"`
	// ReplicationLag is how far a standby's replay is behind, by its probes: 0 when it has replayed all that it has received and all that
	// its primary was seen to have written, and for a primary; -1s where it can't be read. In JSON in seconds.
	ReplicationLag time.Duration `json:"replication_lag"`
	// ReplicationLagBytes is how much WAL a standby had yet to replay then.
	ReplicationLagBytes int64 `json:"replication_lag_bytes"`
	// Lagging: it is farther behind than max_replication_lag, so that others are used as long as there are some.
	Lagging bool `json:"lagging"`
	// ResponseTime is that of the last probe that succeeded; in JSON in seconds.
	ResponseTime time.Duration `json:"response_time"`
	// LastCheck is when the last probe ended; zero before the first.
	LastCheck time.Time `json:"last_check"`
	// LastError is what the last failed probe or dial said, without secrets; empty while it is up.
	LastError    string  `json:"last_error"`
	TotalChecks  int64   `json:"total_checks"`
	FailedChecks int64   `json:"failed_checks"`
	SuccessRate  float64 `json:"success_rate"`
	// Note says what this server can't tell (no timeline, no role) or do (cancel requests that come to nothing), and what that costs;
	// empty where there is nothing to say.
	Note string `json:"note,omitempty"`
	// History holds the last probes, oldest first.
	History []Check `json:"history"`
}

// Check is one probe.
type Check struct {
	At           time.Time     `json:"at"`
	OK           bool          `json:"ok"`
	ResponseTime time.Duration `json:"response_time"`
	Error        string        `json:"error,omitempty"`
}

// Status says which endpoint is used, and how it came to that.
type Status struct {
	// Current is the endpoint new connections go to; empty when none is usable.
	Current string `json:"current"`
	// IsPrimary: Current is the first of the configured endpoints.
	IsPrimary     bool  `json:"is_primary"`
	FailoverCount int64 `json:"failover_count"`
	FailbackCount int64 `json:"failback_count"`
	// LastFailover is zero when there was none.
	LastFailover time.Time `json:"last_failover"`
	Endpoints    []string  `json:"endpoints"`
	// History holds the last events, oldest first.
	History []Event `json:"history"`
}

// EventKind tells a failover from a failback.
type EventKind string

const (
	// Failover: a move to a worse endpoint, because the better one can't be used.
	Failover EventKind = "failover"
	// Failback: a move to a better endpoint.
	Failback EventKind = "failback"
)

// Event is a move from one endpoint to another.
type Event struct {
	Kind   EventKind `json:"kind"`
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	// Duration is how long there was no usable endpoint before the move; 0 for a failback. In JSON in seconds.
	Duration time.Duration `json:"duration"`
}

// MarshalJSON writes the durations in seconds.
func (h Health) MarshalJSON() ([]byte, error) {
	type plain Health
	return json.Marshal(struct {
		plain
		ResponseTime float64 `json:"response_time"`
	}{plain(h), h.ResponseTime.Seconds()})
}

// MarshalJSON writes the durations in seconds.
func (h EndpointHealth) MarshalJSON() ([]byte, error) {
	type plain EndpointHealth
	return json.Marshal(struct {
		plain
		ResponseTime   float64 `json:"response_time"`
		ReplicationLag float64 `json:"replication_lag"`
	}{plain(h), h.ResponseTime.Seconds(), h.ReplicationLag.Seconds()})
}

// MarshalJSON writes the durations in seconds.
func (c Check) MarshalJSON() ([]byte, error) {
	type plain Check
	return json.Marshal(struct {
		plain
		ResponseTime float64 `json:"response_time"`
	}{plain(c), c.ResponseTime.Seconds()})
}

// MarshalJSON writes the durations in seconds.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	return json.Marshal(struct {
		plain
		Duration float64 `json:"duration"`
	}{plain(e), e.Duration.Seconds()})
}
