package conn

import "github.com/managedpg/managedpg/conn"

// What a program names of conn is declared in the public package of that name, and goes by the same names here.
type (
	LostError        = conn.LostError
	ReclaimedError   = conn.ReclaimedError
	PoolTimeoutError = conn.PoolTimeoutError
)

var (
	ErrPoolTimeout    = conn.ErrPoolTimeout
	ErrReclaimed      = conn.ErrReclaimed
	ErrTxLost         = conn.ErrTxLost
	ErrOutcomeUnknown = conn.ErrOutcomeUnknown
	ErrClosed         = conn.ErrClosed
)
