package pool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A connection whose reset is not answered is given up with its checkout, and its place is free only when its socket is
// closed: pgx, left to itself, goes on in the background.
func TestUnansweredResetLeavesNoSocket(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), pgtest.DropCancels())
			gate := newGate(t, proxy.Addr())
			dsn := strings.Replace(pgtest.Database(t), pgtest.Shared(t).Addr(), gate.addr, 1)
			db := rig.Open(t, rig.WithKeys(dsn, "base_driver="+base, "pool_size=1", "max_overflow=0", "pool_reset=discard_all",
				"connect_timeout=0", "health_check=false"))
			first := rig.Value[int](t, db, "SELECT pg_backend_pid()")

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			proxy.Arm(pgtest.Fault{On: pgtest.OnQuery("DISCARD ALL"), Do: pgtest.Hang, Hook: cancel})
			if _, err := db.ExecContext(ctx, "SELECT 1"); !errors.Is(err, context.Canceled) {
				t.Errorf("a call whose reset hangs: %v, want its context's error", err)
			}
			if second := rig.Value[int](t, db, "SELECT pg_backend_pid()"); second == first {
				t.Error("the connection is used again")
			}
			if most := gate.most(); most > 1 {
				t.Errorf("%d sockets at once in a pool of one", most)
			}
		})
	}
}

// SetMaxOpenConns works against a pool that the driver governs. That is said once.
func TestSetMaxOpenConnsIsWarnedOfOnce(t *testing.T) {
	for keys, want := range map[string]int{"pool_size=2": 1, "pool_size=none": 0} {
		var log bytes.Buffer
		cfg, err := managedpg.ParseDSN(rig.WithKeys(pgtest.Database(t), keys))
		if err != nil {
			t.Fatal(err)
		}
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		db, err := managedpg.OpenDB(cfg)
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		for range 3 {
			held, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			waiting := db.Stats().WaitCount
			done := make(chan error, 1)
			go func() { done <- db.PingContext(t.Context()) }()
			rig.Eventually(t, "a call waits in sql.DB", func() bool { return db.Stats().WaitCount > waiting })
			rig.Exec(t, held, "BEGIN") // so that it isn't kept, and sql.DB's opener opens one for who waits
			_ = held.Close()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the call waits on")
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(log.String(), "SetMaxOpenConns"); n != want {
			t.Errorf("%s: %d warnings, want %d:\n%s", keys, n, want, log.String())
		}
	}
}
