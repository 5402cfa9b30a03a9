package pgtest_test

import (
	"database/sql"
	"net"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// pgx sends a cancel request after a startup that failed, which asks for no session.
func TestRelayCountsNoCancelRequests(t *testing.T) {
	r, err := pgtest.NewRelay("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Set(pgtest.RelayMode{HangUp: true})
	db, err := sql.Open("pgx", "postgres://postgres@"+r.Addr()+"/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Ping(); err == nil {
		t.Fatal("a ping went through")
	}
	cancel, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer cancel.Close()
	if _, err := cancel.Write([]byte{0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 1}); err != nil {
		t.Fatal(err)
	}
	_ = cancel.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := cancel.Read(make([]byte, 1)); err == nil {
		t.Error("an answer to a cancel request")
	}
	if asked := r.Asked(); asked != 1 {
		t.Errorf("asked %d times, want 1", asked)
	}
}
