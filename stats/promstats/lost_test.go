package promstats

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Calls whose connection was lost are counted by what is known of them, with both base drivers and whoever governs.
func TestLostCalls(t *testing.T) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	defer managedpg.SetLogger(nil)
	const suicide = "SELECT pg_terminate_backend(pg_backend_pid(), 1000)"
	for _, keys := range []string{"", "&pool_size=2", "&base_driver=pq", "&base_driver=pq&pool_size=2"} {
		t.Run(keys, func(t *testing.T) {
			db := open(t, pgtest.Database(t)+"&pool_name=orders"+keys)
			for range 2 {
				if _, err := db.Exec(suicide); !errors.Is(err, managedpg.ErrOutcomeUnknown) {
					t.Fatal(err)
				}
			}
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if _, err = tx.Exec(suicide); !errors.Is(err, managedpg.ErrTxLost) {
				t.Fatal(err)
			}
			pool, _ := managedpg.PoolOf(db)
			if s := pool.Stats(); s.UnknownOutcomes != 2 || s.LostTransactions != 1 {
				t.Errorf("%d of unknown outcome and %d lost transactions; want 2 and 1", s.UnknownOutcomes, s.LostTransactions)
			}
			tx.Rollback()
			pool.ResetStats()
			if s := pool.Stats(); s.UnknownOutcomes != 0 || s.LostTransactions != 0 {
				t.Errorf("after ResetStats: %d and %d", s.UnknownOutcomes, s.LostTransactions)
			}
			families := gather(t)
			if n, _ := value(families, "pool_lost_calls_total", "orders", "outcome_unknown"); n != 2 {
				t.Errorf("%v of unknown outcome, want 2", n)
			}
			if n, _ := value(families, "pool_lost_calls_total", "orders", "tx_lost"); n < 1 {
				t.Errorf("%v lost transactions, want 1 at least", n)
			}
		})
	}
}

// Of a server that is down it isn't said that it accepts writes: that is what was last known, and two such would be a split brain.
func TestDeadServerIsNoWriter(t *testing.T) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	defer managedpg.SetLogger(nil)
	server := pgtest.Start(t)
	db := open(t, server.DSNFor("postgres", "pool_name=orders", "pool_size=2"))
	pool, _ := managedpg.PoolOf(db)
	h := pool.CheckNow(context.Background())
	endpoint := h.Endpoints[0].Endpoint
	if n, ok := value(gather(t), "endpoint_writable", "orders", endpoint); !ok || n != 1 {
		t.Fatalf("writable is %v (there: %v) while the server is up", n, ok)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if h := pool.CheckNow(context.Background()); h.Healthy {
		t.Fatal("a server that was killed is healthy")
	}
	families := gather(t)
	if n, ok := value(families, "endpoint_writable", "orders", endpoint); ok {
		t.Errorf("writable is %v when the server is dead", n)
	}
	if n, _ := value(families, "endpoint_state", "orders", endpoint, "down"); n != 1 {
		t.Errorf("down is %v, want 1", n)
	}
}
