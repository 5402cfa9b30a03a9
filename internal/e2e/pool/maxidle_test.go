package pool_test

import (
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A program whose calls dial because database/sql keeps two connections is told so once; others aren't.
func TestToldOfMaxIdleConns(t *testing.T) {
	for _, test := range []struct {
		name, keys string
		idle       int
		told       int
	}{
		{"the default", "base_driver=pgx", 2, 1},
		{"the default, pq", "base_driver=pq", 2, 1},
		{"enough", "base_driver=pgx", 8, 0},
		{"pool_size", "pool_size=8", 2, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			log := &lockedBuffer{}
			db := rig.OpenConfig(t, rig.WithKeys(pgtest.Database(t), test.keys), func(c *managedpg.Config) { c.Logger = slog.New(slog.NewTextHandler(log, nil)) })
			db.SetMaxIdleConns(test.idle)
			const told = "database/sql closes connections as they are given back"
			end := time.Now().Add(30 * time.Second)
			for n := 0; n < 40 || test.told > 0 && !strings.Contains(log.String(), told) && time.Now().Before(end); n++ {
				held := make([]*sql.Conn, 8) // of which six find no room
				for i := range held {
					var err error
					held[i], err = db.Conn(t.Context())
					rig.NoError(t, err)
				}
				for _, c := range held {
					rig.NoError(t, c.Close())
				}
			}
			if n := strings.Count(log.String(), told); n != test.told {
				t.Errorf("told %d times, want %d:\n%s", n, test.told, log.String())
			}
		})
	}
}
