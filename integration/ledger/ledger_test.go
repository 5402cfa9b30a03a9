package main

import (
	"context"
	"database/sql"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(pgtest.Main(m))
}

// TestLedger is a short run with each base driver and each policy.
func TestLedger(t *testing.T) {
	for i, name := range []string{"managedpg-pgx", "managedpg-pq-sql", "managedpg-pq"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sys, err := systems(name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := run(t.Context(), config{sys: sys, seed: uint64(2 + i), duration: 6 * time.Second, keep: os.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range r.wrong(sys) {
				t.Error(w)
			}
			var out strings.Builder
			table(&out, []*system{sys}, []*report{r})
			t.Log("\n" + out.String())
		})
	}
}

// TestCheckerCatches runs drivers that break the promises, each in its way.
func TestCheckerCatches(t *testing.T) {
	s, err := startServers()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	run := func(sys *system) *report {
		r, err := runOn(t.Context(), s, config{sys: sys, seed: 1, duration: time.Minute, faults: "reset after COMMIT", count: 3})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}

	// It tries again whatever the error was.
	blind := *bare("blind", "pgx")
	blind.transact = func(ctx context.Context, db *sql.DB, readOnly bool, fn func(context.Context, *sql.Tx) error) (t told, err error) {
		for range 10 {
			if t, err = bare("", "pgx").transact(ctx, db, readOnly, fn); err == nil {
				break
			}
		}
		return t, err
	}
	caught := false
	for try := 0; try < 10 && !caught; try++ { // it may be readers whose COMMIT is lost
		caught = len(run(&blind).doubled) > 0
	}
	if !caught {
		t.Error("a driver that retries blindly is not caught")
	}

	// It says ok to one in ten transactions that it rolls back, and otherwise does as it should.
	honest, err := systems("managedpg-pgx")
	if err != nil {
		t.Fatal(err)
	}
	forgetful := *honest
	forgetful.transact = func(ctx context.Context, db *sql.DB, readOnly bool, fn func(context.Context, *sql.Tx) error) (told, error) {
		drop := !readOnly && rand.IntN(10) == 0
		t, err := honest.transact(ctx, db, readOnly, func(ctx context.Context, tx *sql.Tx) error {
			if err := fn(ctx, tx); err != nil || !drop {
				return err
			}
			return context.Canceled
		})
		if drop && err != nil {
			return ok, nil
		}
		return t, err
	}
	if r := run(&forgetful); len(r.lost) == 0 || len(r.doubled) > 0 || len(r.untrue) > 0 {
		t.Errorf("a driver that drops acknowledged writes is not caught: %v", r.wrong(&forgetful))
	}

	// And nothing is found where nothing is wrong.
	if r := run(honest); len(r.wrong(honest)) > 0 {
		t.Errorf("found: %v", r.wrong(honest))
	}
}

// TestCheckFindsEachKind is without servers.
func TestCheckFindsEachKind(t *testing.T) {
	sound := func() (*history, *state) {
		h := &history{}
		s := &state{rows: map[int64]int{1: 1, 4: 1}, balances: map[int]int64{}, moved: map[int]int64{1: -5, 2: 5}}
		for id := 1; id <= accounts; id++ {
			s.balances[id] = opening
		}
		s.balances[1], s.balances[2] = opening-5, opening+5
		h.entries = []entry{
			{ID: 1, Kind: "transfer", Told: ok}, {ID: 2, Kind: "transfer", Told: failed}, {ID: 3, Kind: "transfer", Told: unknown},
			{ID: 4, Kind: "note", Told: unknown}, {ID: 5, Kind: "sum", Told: ok, Sum: accounts * opening},
			{ID: 6, Kind: "read", Told: ok, Sum: accounts * opening, Old: true},
		}
		return h, s
	}
	sys := &system{resolves: true, marked: managedpg.ReadOnly}
	for name, spoil := range map[string]func(*history, *state){
		"":                        func(*history, *state) {},
		"lost":                    func(_ *history, s *state) { delete(s.rows, 1) },
		"doubled":                 func(_ *history, s *state) { s.rows[1] = 2 },
		"doubled, unknown":        func(_ *history, s *state) { s.rows[4] = 2 },
		"failed, and there":       func(_ *history, s *state) { s.rows[2] = 1 },
		"cancelled, and there":    func(h *history, s *state) { h.entries[1].Brief, s.rows[2] = true, 1 },
		"a reader saw another":    func(h *history, _ *state) { h.entries[4].Sum++ },
		"so did one of a standby": func(h *history, _ *state) { h.entries[5].Sum-- },
		"none of a standby":       func(h *history, _ *state) { h.entries[5].Old = false },
		"one that wasn't to":      func(h *history, _ *state) { h.entries[4].Old = true },
		"money from nowhere":      func(_ *history, s *state) { s.balances[3]++ },
		"half a transfer":         func(_ *history, s *state) { s.balances[1] += 5 },
		"moved without entry":     func(_ *history, s *state) { s.balances[3]--; s.balances[4]++ },
		"nobody's entry":          func(_ *history, s *state) { s.rows[99] = 1 },
		"not resolved": func(h *history, _ *state) {
			h.events = append(h.events, event{Kind: "reset after COMMIT"})
		},
	} {
		h, s := sound()
		spoil(h, s)
		if wrong := check(sys, h, s).wrong(sys); (len(wrong) > 0) != (name != "") {
			t.Errorf("%q: found %q", name, wrong)
		}
	}

	h, s := sound() // whose context has ended can't ask what became of its COMMIT
	h.entries[2].Brief, h.events = true, []event{{Kind: "reset after COMMIT"}}
	if r := check(sys, h, s); len(r.wrong(sys)) > 0 || r.brief != (count{unknown: 1}) {
		t.Errorf("one with a context that ends at random: found %q, counted %+v", r.wrong(sys), r.brief)
	}
}
