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
	waited []bool
}

func (r *resetting) Connect(context.Context) (driver.Conn, error) { return r, nil }

func (r *resetting) ResetSession(context.Context) error {
	r.waited = append(r.waited, waitedFor(0))
	return nil
}

// A connection that was free and one that was waited for are told apart.
func TestWaitedFor(t *testing.T) {
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
	if len(r.waited) != 2 || !r.waited[0] || r.waited[1] {
		t.Errorf("waited for: %v, want true, false", r.waited)
	}
}
