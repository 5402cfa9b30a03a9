package failover

import (
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/closed"
)

// What a program names of failover is declared in the public package of that name, and goes by the same names here.
type (
	State           = failover.State
	Role            = failover.Role
	Health          = failover.Health
	EndpointHealth  = failover.EndpointHealth
	Check           = failover.Check
	Status          = failover.Status
	EventKind       = failover.EventKind
	Event           = failover.Event
	NoEndpointError = failover.NoEndpointError
	EndpointError   = failover.EndpointError
	DropError       = failover.DropError
	DropKind        = failover.DropKind
)

const (
	Unknown       = failover.Unknown
	Up            = failover.Up
	Suspect       = failover.Suspect
	Down          = failover.Down
	Misconfigured = failover.Misconfigured

	RoleUnknown = failover.RoleUnknown
	ReadWrite   = failover.ReadWrite
	ReadOnly    = failover.ReadOnly

	Failover = failover.Failover
	Failback = failover.Failback

	Fenced = failover.Fenced
	Moved  = failover.Moved
	Hung   = failover.Hung
)

var (
	ErrNoEndpoint = failover.ErrNoEndpoint
	// ErrClosed is what Connect, Failback and those waiting in them get after Close.
	ErrClosed = closed.Err
)
