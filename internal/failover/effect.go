package failover

import "github.com/managedpg/managedpg/internal/evidence"

// source is where evidence was met.
type source int

const (
	fromDial source = iota
	fromProbe
	fromCall
)

// effect is what evidence does to an endpoint.
type effect int

const (
	nothing       effect = iota
	probeNow             // its state stays, a probe goes out
	suspectNow           // Suspect, and a probe goes out
	alive                // it answers: no longer Down, but this was no success either
	full                 // alive, and nobody gets in
	misconfigured        // Misconfigured
	down                 // Down
)

// effectOf is the table of design.md §7. A TimedOut given to it passed the endpoint's own limit; a caller's deadline is
// a matter for Connect, and never more than suspectNow.
func effectOf(from source, of evidence.Kind) effect {
	if from == fromCall {
		switch of {
		case evidence.Lost, evidence.Ended, evidence.TimedOut, evidence.Unclear:
			return suspectNow
		case evidence.WentReadOnly:
			return probeNow
		default: // a statement's own error, 42501 and 53xxx included
			return nothing
		}
	}
	switch of {
	case evidence.Lost, evidence.TimedOut, evidence.Unclear:
		return down
	case evidence.Ended:
		return suspectNow
	case evidence.WentReadOnly:
		return probeNow
	case evidence.Busy:
		return full
	case evidence.Interrupted:
		return alive
	case evidence.Refused, evidence.Answered:
		return misconfigured
	default:
		return nothing
	}
}
