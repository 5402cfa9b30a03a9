// Package failover knows the endpoints of a pool, what has been seen of each, which one is used now, and why.
//
// It never opens or touches a connection itself, and knows no SQL: it is told what was observed ([Observation], and what
// internal/evidence says of errors), decides, and says so. The parts, in the order in which to read them:
//
//   - health.go and errors.go of the public package failover, by the same names here (names.go): the states of an endpoint, and
//     what is told to the outside
//   - effect.go: what evidence does to an endpoint's state
//   - rank.go: which endpoint is used, given what is known of each
//   - group.go, endpoint.go: the state machine: all state under one mutex, evidence in
//   - settle.go, why.go: the consequences, and why an endpoint isn't used
//   - outbox.go, strays.go: how they reach code that isn't the group's
//   - lag.go: how far a standby is behind
//   - balance.go: how connections are spread over several endpoints
//   - connect.go, trial.go, admit.go, wait.go, alone.go: how a checkout gets to an endpoint, tries one, and waits for one
//   - gate.go: how many dials to an endpoint are under way
//   - name.go: the addresses behind an endpoint's name
//   - life.go, monitor.go, pace.go: beginning and end, the probes, and when the next is due
//   - failback.go, status.go: moving back by hand, and what is known
package failover
