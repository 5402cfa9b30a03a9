package driver

import "testing"

// TestFiguresOfAPoolBeingMade: a scrape may come while the program opens another pool.
func TestFiguresOfAPoolBeingMade(t *testing.T) {
	made := make(chan struct{})
	go func() {
		defer close(made)
		for range 200 {
			cfg, err := ParseDSN("postgres://127.0.0.1:1/nowhere?pool_name=making")
			if err != nil {
				t.Error(err)
				return
			}
			c, err := NewConnector(cfg)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		}
	}()
	for done := false; !done; {
		select {
		case <-made:
			done = true
		default:
		}
		for _, c := range Pools() {
			c.Stats()
			c.Health()
		}
	}
}
