package conn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
)

// resetting notes with what DB.conn has called.
type resetting struct {
	showing
	found []bool
}

func (r *resetting) Connect(context.Context) (driver.Conn, error) { return r, nil }

func (r *resetting) ResetSession(context.Context) error {
	r.found = append(r.found, foundFree(0))
	return nil
}

// A connection that was free and one that was waited for are told apart.
func TestFoundFree(t *testing.T) {
	r := &resetting{}
	db := sql.OpenDB(r)
	defer db.Close()
	db.SetMaxOpenConns(1)
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		c, err := db.Conn(context.Background())
		if err == nil {
			err = c.Close()
		}
		got <- err
	}()
	for db.Stats().WaitCount == 0 {
		// it is about to wait
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if c, err := db.Conn(t.Context()); err != nil || c.Close() != nil {
		t.Fatal(err)
	}
	if len(r.found) != 2 || r.found[0] || !r.found[1] {
		t.Errorf("found free: %v, want false, true", r.found)
	}
}
