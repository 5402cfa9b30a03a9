package conn

import (
	"errors"
	"testing"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A question that was on its way when the server was promoted began in recovery, and its transaction stays read-only. The
// server doesn't.
func TestProbeDuringAPromotion(t *testing.T) {
	primary := pgtest.Start(t)
	for name, endpoint := range map[string]func(dsn string) (*base.Endpoint, error){
		"pgx": func(dsn string) (*base.Endpoint, error) { return base.Pgx("standby", dsn, base.Options{}, nil) },
		"pq":  func(dsn string) (*base.Endpoint, error) { return base.Pq("standby", dsn, base.Options{}) },
	} {
		t.Run(name, func(t *testing.T) {
			standby, err := primary.Standby()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { standby.Close() })
			e, err := endpoint(standby.DSN())
			if err != nil {
				t.Fatal(err)
			}
			p := NewProber(true)
			defer p.Close()
			if s, err := p.Probe(t.Context(), e, false); err != nil || s.Standby != base.Yes {
				t.Fatalf("%+v, %v", s, err)
			}
			if _, err := p.kept.Ask(t.Context(), "BEGIN"); !errors.Is(err, base.ErrNoRow) {
				t.Fatal(err)
			}
			if _, err := p.kept.Ask(t.Context(), "SELECT 'a snapshot'"); err != nil {
				t.Fatal(err)
			}
			kept := p.kept
			if err := standby.Promote(); err != nil {
				t.Fatal(err)
			}
			if s, err := p.Probe(t.Context(), e, false); err != nil || s.Standby != base.No || s.ReadOnly != base.No || s.Timeline != 2 || p.kept != kept {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}

// A connection that was kept and is closed for a new one's sake is nobody's any more: who asks for an older one is told that there is none.
func TestAClosedProbeIsNotLent(t *testing.T) {
	e, err := base.Pgx("server", pgtest.Database(t), base.Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := NewProber(true)
	defer p.Close()
	for _, anew := range []bool{false, true} {
		if _, err := p.Probe(t.Context(), e, anew); err != nil {
			t.Fatal(err)
		}
	}
	if c, busy := p.older(p.kept.opened, nil); c != nil || busy {
		t.Errorf("got %v, busy: %t", c, busy)
	}
}
