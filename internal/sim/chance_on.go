//go:build simruntime

package sim

import (
	"context"
	"net"
	_ "unsafe" // for the names of others
)

// seedBubble is the changed runtime's: see overlay_test.go.
func seedBubble(seed uint64)

// simulated is the changed dialer's.
//
//go:linkname simulated github.com/managedpg/managedpg/internal/wire.simulated
var simulated struct {
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	lookup func(ctx context.Context, name string) ([]string, error)
}

// dialBy has those dial the simulated network whom a program can't give a dialer.
func dialBy(n *network) { simulated.dial, simulated.lookup = n.dial, n.lookup }
