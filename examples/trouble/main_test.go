package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite(m)) }

// Each symptom shows, and what the pool says of it names the cause.
func TestEachSymptomNamesItsCause(t *testing.T) {
	wanted := map[string][]string{
		"exhausted": {"no connection within 1", "(4 open, 4 in use", "exhausted.go", ".bill of the time used lately"},
		"deploy":    {"version 1", "version 2", "idle", "call SetMaxIdleConns"},
		"climb":     {"connection is held too long", "climb.go", ".firstMatch", "too many clients already"},
		"failover":  {"no endpoint is usable", "managedpg: failover", "duration=", "without an endpoint"},
		"unknown":   {"outcome unknown", "57P01", "unknown_outcomes", "broken"},
		"timeouts":  {"57014", "The server is up", "calls timed out at", ".listOrders", "idle in transaction", "That one is ours", "timeouts.go", ".audit"},
	}
	for _, s := range symptoms {
		t.Run(s.name, func(t *testing.T) {
			var out lockedBuffer
			if err := play(t.Context(), &out, false, s.make); err != nil {
				t.Fatalf("%v\n%s", err, out.String())
			}
			for _, text := range wanted[s.name] {
				if !strings.Contains(out.String(), text) {
					t.Errorf("lacks %q:\n%s", text, out.String())
				}
			}
		})
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}
