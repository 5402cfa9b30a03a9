package conn

import (
	"errors"
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// A question that was on its way when the server was promoted began in recovery, and its transaction stays read-only. The
// server doesn't.
func TestProbeDuringAPromotion(t *testing.T) {
	primary := pgtest.Start(t)
	for name, endpoint := range map[string]func(dsn string) (*Endpoint, error){
		"pgx": func(dsn string) (*Endpoint, error) { return Pgx("standby", dsn, &Dialer{}, nil) },
		"pq":  func(dsn string) (*Endpoint, error) { return Pq("standby", dsn, &Dialer{}) },
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
			if s, err := p.Probe(t.Context(), e, false); err != nil || s.Standby != Yes {
				t.Fatalf("%+v, %v", s, err)
			}
			if _, err := askOne(t.Context(), p.kept.base, "BEGIN"); !errors.Is(err, errProbeRow) {
				t.Fatal(err)
			}
			if _, err := askOne(t.Context(), p.kept.base, "SELECT 'a snapshot'"); err != nil {
				t.Fatal(err)
			}
			kept := p.kept
			if err := standby.Promote(); err != nil {
				t.Fatal(err)
			}
			if s, err := p.Probe(t.Context(), e, false); err != nil || s.Standby != No || s.ReadOnly != No || s.Timeline != 2 || p.kept != kept {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
}
