package resolve

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// session is a connection to a server that says of each transaction what status has.
type session struct {
	base.Conn
	pid, started, system, status string
}

func (s *session) Askable() bool        { return true }
func (s *session) Socket() *wire.Socket { return nil }
func (s *session) OnSyncWait(func())    {}
func (s *session) Close(then func())    { then() }

func (s *session) Identify(context.Context, bool, bool) (base.Server, error) {
	return base.Server{PID: 7}, nil
}

func (s *session) Ask(_ context.Context, query string) ([]string, error) {
	identity := []string{s.pid, "false", s.system, "1"}
	switch {
	case strings.Contains(query, "clock_timestamp"):
		return []string{"42", s.pid, "1000"}, nil
	case strings.Contains(query, "backend_start"):
		return append(append([]string{s.status}, identity...), s.started, ""), nil
	default:
		return append([]string{""}, identity...), nil
	}
}

// servers are what the pool has: older connections, each lent once, and what a new one leads to.
type servers struct {
	older  []*session
	fresh  *session
	fenced bool
	given  int
	opened int
}

func (p *servers) Fenced(s base.Server) error {
	if p.fenced && s.SystemID == "1" && s.Timeline == 1 && s.Standby == base.No {
		return errors.New("on timeline 1, while db2 was seen on timeline 2")
	}
	return nil
}

func (p *servers) Older(_ context.Context, _ time.Duration, passed map[any]bool) (*Lent, bool) {
	for _, s := range p.older {
		if !passed[s] {
			return &Lent{Conn: s, PID: 7, Key: s, GiveBack: func() { p.given++ }}, true
		}
	}
	return nil, false
}

func (p *servers) Fresh(context.Context) (base.Conn, error) {
	if p.fresh == nil {
		return nil, errors.New("refused")
	}
	p.opened++
	return p.fresh, nil
}

// Committed is believed of a connection that is older than the COMMIT, aborted of any that leads to the same server.
func TestWhoIsBelieved(t *testing.T) {
	older := func(status string) *session { return &session{pid: "7", started: "999", system: "1", status: status} }
	fresh := func(status string) *session { return &session{pid: "7", started: "1001", system: "1", status: status} }
	elsewhere := &session{pid: "7", started: "999", system: "2", status: "committed"}
	pooled := &session{pid: "8", started: "999", system: "1", status: "committed"}
	for name, c := range map[string]struct {
		pool *servers
		want Outcome
		why  string
	}{
		"an older connection says committed":      {&servers{older: []*session{older("committed")}}, Committed, ""},
		"one of a fenced server says committed":   {&servers{older: []*session{older("committed")}, fresh: fresh("committed"), fenced: true}, Unknown, "but is fenced, so those that go on"},
		"one of a fenced server says aborted":     {&servers{older: []*session{older("aborted")}, fenced: true}, Aborted, ""},
		"an older connection says aborted":        {&servers{older: []*session{older("aborted")}}, Aborted, ""},
		"the second of them does":                 {&servers{older: []*session{elsewhere, older("committed")}}, Committed, ""},
		"a new one says aborted":                  {&servers{fresh: fresh("aborted")}, Aborted, ""},
		"a new one says committed":                {&servers{fresh: fresh("committed")}, Unknown, "after a crash the id may be another's"},
		"one says committed that began later":     {&servers{older: []*session{fresh("committed")}, fresh: fresh("committed")}, Unknown, "may be another's"},
		"one says committed through a pooler":     {&servers{older: []*session{pooled}, fresh: fresh("committed")}, Unknown, "may be another's"},
		"it is another server by now":             {&servers{fresh: elsewhere}, Unknown, "now there is timeline 1 of 2"},
		"the server has forgotten it":             {&servers{fresh: fresh("")}, Unknown, "no longer knows it"},
		"nobody is to be had":                     {&servers{}, Unknown, "no new one to be had: refused"},
		"an older one and a new one of elsewhere": {&servers{older: []*session{elsewhere}, fresh: elsewhere}, Unknown, "of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := older("")
			known, err := Identify(t.Context(), of, nil)
			if err != nil {
				t.Fatal(err)
			}
			commit, err := Prepare(t.Context(), of, known)
			if err != nil || commit.XID != 42 || commit.Why != "" {
				t.Fatalf("%+v, %v", commit, err)
			}
			got, err := commit.Outcome(t.Context(), context.Background(), c.pool, "db")
			if got != c.want || (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, %v; want %v, %q", got, err, c.want, c.why)
			}
			if len(c.pool.older) > 0 && c.pool.given == 0 {
				t.Error("an older connection was never given back")
			}
		})
	}
}
