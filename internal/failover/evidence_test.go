package failover_test

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/managedpg/managedpg/internal/failover"
)

// What dials, probes and calls meet, and what becomes of an endpoint that was up: the table of design.md §7.
func TestEvidenceMovesState(t *testing.T) {
	const up, suspect, down, misconfigured = failover.Up, failover.Suspect, failover.Down, failover.Misconfigured
	for _, c := range []struct {
		name               string
		err                error
		dial, probe, call_ failover.State
	}{
		{"refused", errRefused, down, down, suspect},
		{"unreachable", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, down, down, suspect},
		{"DNS", &net.DNSError{Err: "no such host"}, down, down, suspect},
		{"own timeout", os.ErrDeadlineExceeded, down, down, suspect},
		{"EOF", io.EOF, down, down, suspect},
		{"57P03", sqlState("57P03"), down, down, suspect},
		{"57P02", sqlState("57P02"), down, down, suspect},
		{"08006", sqlState("08006"), down, down, suspect},
		{"58000", sqlState("58000"), down, down, suspect},
		{"57P01", sqlState("57P01"), suspect, suspect, suspect},
		{"cancelled", context.Canceled, up, up, up},
		{"53300", sqlState("53300"), up, up, up},
		{"53200", sqlState("53200"), up, up, up},
		{"28P01", sqlState("28P01"), misconfigured, misconfigured, up},
		{"3D000", sqlState("3D000"), misconfigured, misconfigured, up},
		{"42501", sqlState("42501"), misconfigured, misconfigured, up},
		{"25006", sqlState("25006"), up, up, up},
		{"23505", sqlState("23505"), misconfigured, misconfigured, up},
		{"out of files", syscall.EMFILE, up, up, up},
	} {
		t.Run(c.name, func(t *testing.T) {
			scene(t, nil, two, func(r *rig) {
				r.warmUp(0)
				r.servers[0].set(func(s *server) { s.dialErr = c.err; s.latency = 20e6 })
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go func() { _, _ = r.connect(ctx) }()
				r.pass(25e6)
				want(r.t, "after a dial", r.Health().Endpoints[0].State, c.dial)
			})
			scene(t, nil, two, func(r *rig) {
				r.warmUp(0)
				r.servers[0].set(func(s *server) { s.err = c.err })
				want(r.t, "after a probe", r.CheckNow(context.Background()).Endpoints[0].State, c.probe)
			})
			scene(t, nil, two, func(r *rig) {
				r.warmUp(0)
				r.servers[0].set(func(s *server) { s.latency = 20e6 })
				r.CallFailed(0, c.err)
				want(r.t, "after a call", r.Health().Endpoints[0].State, c.call_)
			})
		})
	}
}
