package pool_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// silent is a server that accepts connections and says nothing.
func silent(t *testing.T) (dsn string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	rig.NoError(t, err)
	held := make(chan net.Conn, 1000)
	t.Cleanup(func() {
		l.Close()
		for c := range held {
			c.Close()
		}
	})
	go func() {
		defer close(held)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held <- c
		}
	}()
	return "postgres://u@" + l.Addr().String() + "/d?sslmode=disable"
}

// A caller gives up while a connection is made. Bare lib/pq doesn't look at the context while it connects, and what its callers,
// its own tests among them, know is the context's error itself; bare pgx has one around it, or its dialer's.
func TestCallerGivesUpWhileConnecting(t *testing.T) {
	swallows := pgtest.Start(t, pgtest.Conf("max_connections=20"))
	undo, err := swallows.BlackHole()
	rig.NoError(t, err)
	defer func() { rig.NoError(t, undo()) }()
	for where, dsn := range map[string]string{
		"dial":    "postgres://u@" + swallows.Addr() + "/d?sslmode=disable",
		"startup": silent(t),
	} {
		for how, within := range map[string]func(context.Context) (context.Context, context.CancelFunc){
			"cancelled": func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(50*time.Millisecond, cancel)
				return ctx, cancel
			},
			"deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 50*time.Millisecond)
			},
		} {
			for _, c := range rig.Combinations {
				t.Run(fmt.Sprintf("%s,%s,%s", where, how, c), func(t *testing.T) {
					db := rig.Open(t, c.DSN(dsn, "health_check=false"))
					ctx, cancel := within(t.Context())
					defer cancel()
					_, err := db.ExecContext(ctx, "SELECT 1")
					ctxErr := ctx.Err()
					if !errors.Is(err, ctxErr) {
						t.Errorf("got %v", err)
					}
					if c.Base == "pq" {
						if err != ctxErr {
							t.Errorf("got %T: %v", err, err)
						}
					}
				})
			}
		}
	}
}
