package driver

import (
	"log/slog"
	"testing"

	"github.com/managedpg/managedpg/internal/base"
)

// TestFiguresOfAPoolBeingMade: a scrape may come while the program opens another pool.
func TestFiguresOfAPoolBeingMade(t *testing.T) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		for range 200 {
			e, err := base.Pq("making", "host=127.0.0.1 port=1 dbname=nowhere", base.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			_ = New(Options{Name: "making", Endpoints: []*base.Endpoint{e}, Logger: slog.Default}).Close()
		}
	}()
	for done := false; !done; {
		select {
		case <-made:
			done = true
		default:
		}
		for _, c := range Connectors() {
			c.Stats()
			c.Health()
		}
	}
}
