package failover_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// The first server is gone and the second is a standby: a checkout that wants to write gets to the third.
func Example() {
	g := failover.New(failover.Options{
		Pool:               "orders",
		TargetSessionAttrs: "read-write",
		Failover:           true,
		Logger:             func() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) },
	}, failover.Endpoint{Name: "db1:5432/app"}, failover.Endpoint{Name: "db2:5432/app"}, failover.Endpoint{Name: "db3:5432/app"})
	defer g.Close()

	roles := []failover.Role{"", failover.ReadOnly, failover.ReadWrite}
	err := g.Connect(context.Background(), time.Time{}, func(ctx context.Context, to failover.Route) error {
		if to.Member == 0 {
			return syscall.ECONNREFUSED
		}
		// The connection is open, and its role has been read. If it won't do, the one who dials closes it.
		return failover.Admit(ctx, failover.Observation{Role: roles[to.Member]})
	})
	fmt.Println(err, g.Status().Current)
	for _, e := range g.Health().Endpoints {
		fmt.Println(e.Endpoint, e.State, e.Role)
	}
	// Output:
	// <nil> db3:5432/app
	// db1:5432/app down unknown
	// db2:5432/app up read-only
	// db3:5432/app up read-write
}
