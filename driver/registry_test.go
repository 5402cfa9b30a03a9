package driver

import (
	"log/slog"
	"testing"

	"github.com/managedpg/managedpg/conn"
)

// TestFiguresOfAPoolBeingMade: a scrape may come while the program opens another pool.
func TestFiguresOfAPoolBeingMade(t *testing.T) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		for range 200 {
			e, err := conn.Pq("making", "host=127.0.0.1 port=1 dbname=nowhere", &conn.Dialer{})
			if err != nil {
				t.Error(err)
				return
			}
			_ = New(Options{Name: "making", Endpoints: []*conn.Endpoint{e}, Logger: slog.Default}).Close()
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
