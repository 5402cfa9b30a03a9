package conn

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/managedpg/managedpg/internal/base"
)

// A pooler repeats what the server told when it was a standby. It is a writer by now, so a connection through it is one to a
// writer, and what is lost on it may have been done.
func TestPoolerThatRepeatsAnOldRole(t *testing.T) {
	for _, recovery := range []string{"false", "true"} {
		t.Run("pg_is_in_recovery="+recovery, func(t *testing.T) {
			e, err := base.Pgx("pooler", "postgres://u@"+pooler(t, recovery)+"/db?sslmode=disable", base.Options{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var admitted base.Server
			p := New(Options{Role: true, Name: "pooler"}, admitting{straight{e}, &admitted})
			defer p.Close()
			c, err := p.Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			want := base.AnswerOf(recovery)
			if admitted.Standby != want || admitted.ReadOnly != want {
				t.Errorf("the server counts as %+v", admitted)
			}
			if _, err = c.(driver.ExecerContext).ExecContext(t.Context(), "SELECT", nil); err == nil ||
				errors.Is(err, ErrOutcomeUnknown) != (want == base.No) {
				t.Errorf("a lost SELECT: %v", err)
			}
		})
	}
}

// A standby may have been promoted when the statement came that was lost on it, of which it has told nobody yet.
func TestWriteThatIsLostOnAStandby(t *testing.T) {
	e, err := base.Pgx("standby", "postgres://u@"+pooler(t, "true")+"/db?sslmode=disable", base.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Options{Role: true, Name: "standby"}, straight{e})
	defer p.Close()
	c, err := p.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.(driver.ExecerContext).ExecContext(t.Context(), "INSERT", nil); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("a lost INSERT: %v", err)
	}
}

type admitting struct {
	straight
	admitted *base.Server
}

func (a admitting) Admit(_ context.Context, s base.Server) error {
	*a.admitted = s
	return nil
}

// pooler says that the server is a standby, gives its answer to whether it is, and hangs up on anything else.
func pooler(t *testing.T, recovery string) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(pgproto3.NewBackend(c, c), recovery)
			}()
		}
	}()
	return l.Addr().String()
}

func serve(b *pgproto3.Backend, recovery string) {
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: "on"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		m, err := b.Receive()
		q, ok := m.(*pgproto3.Query)
		if err != nil || !ok || !strings.Contains(q.String, "pg_is_in_recovery") {
			return
		}
		b.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("pid")}, {Name: []byte("recovery")}, {Name: []byte("read_only")}}})
		b.Send(&pgproto3.DataRow{Values: [][]byte{[]byte("1"), []byte(recovery), []byte(map[string]string{"true": "on", "false": "off"}[recovery])}})
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	}
}
