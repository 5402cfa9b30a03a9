package failover_test

import (
	"bytes"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A wrong database name is told once in the log, for each server that says so, and to each caller.
func TestMisconfiguredIsLoggedOnce(t *testing.T) {
	nowhere := pgtest.Shared(t).DSNFor("nosuch")
	for name, test := range map[string]struct {
		dsn  string
		told int
	}{
		"one server":  {nowhere, 1},
		"two servers": {nowhere + "&failover_urls=" + url.QueryEscape(pgtest.Shared(t).DSNFor("nosuch either")), 2},
	} {
		for _, keys := range []string{"base_driver=pgx", "base_driver=pq", "base_driver=pgx&pool_size=2"} {
			t.Run(name+","+keys, func(t *testing.T) {
				log := &lockedBuffer{}
				db := rig.OpenConfig(t, rig.WithKeys(test.dsn, keys), func(c *managedpg.Config) {
					c.Logger = slog.New(slog.NewTextHandler(log, nil))
				})
				for range 3 {
					if err := db.PingContext(t.Context()); err == nil || !strings.Contains(err.Error(), "nosuch") {
						t.Errorf("got %v", err)
					}
				}
				told := func() int { return strings.Count(log.String(), "endpoint is misconfigured") }
				rig.Eventually(t, "it is logged", func() bool { return told() >= test.told }) // by whoever tells of what came before, after the call
				text := log.String()
				if n := told(); n != test.told || strings.Contains(text, "no endpoint is usable") {
					t.Errorf("logged %d times, want %d, and nothing else:\n%s", n, test.told, text)
				}
			})
		}
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
