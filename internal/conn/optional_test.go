package conn_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
)

// A program behaves the same over a base connection with whatever optional interfaces, with managedpg between or without:
// the same results and errors, and the base sees the same calls with the same arguments.
func TestOptionalInterfaces(t *testing.T) {
	type shape struct{ conns, stmts uint }
	var shapes []shape
	for i, conns := range connShapes() {
		shapes = append(shapes, shape{conns, uint(i) % numStmtShapes})
	}
	for stmts := range numStmtShapes {
		shapes = append(shapes, shape{hasChecker, stmts}, shape{numConnShapes - 1, stmts})
	}
	for _, s := range shapes {
		t.Run(fmt.Sprintf("%010b-%04b", s.conns, s.stmts), func(t *testing.T) {
			t.Parallel()
			bare := &fakeBase{conns: s.conns, stmts: s.stmts}
			want := runScript(t, bare, sql.OpenDB(bare), direct)

			t.Run("database/sql governs", func(t *testing.T) {
				base := &fakeBase{conns: s.conns, stmts: s.stmts}
				got := runScript(t, base, wrapped(t, base, managedpg.Config{}), direct)
				compare(t, "results", got, want)
				compare(t, "calls of the base", base.log(), bare.log())
			})
			t.Run("the driver governs", func(t *testing.T) {
				base := &fakeBase{conns: s.conns, stmts: s.stmts}
				got := runScript(t, base, wrapped(t, base, managedpg.Config{PoolSize: 1, PoolTimeout: -1}), direct)
				compare(t, "results", got, want)
				compare(t, "calls of the base", without(base.log(), ofPreparing), without(bare.log(), ofPreparing))
			})
			t.Run("the driver governs and keeps statements", func(t *testing.T) {
				base := &fakeBase{conns: s.conns, stmts: s.stmts}
				got := runScript(t, base, wrapped(t, base, managedpg.Config{PoolSize: 1, PoolTimeout: -1, StatementCache: 100}), direct)
				compare(t, "results", got, want)
				compare(t, "calls of the base", without(base.log(), ofPreparing), without(bare.log(), ofPreparing))
			})
			t.Run("from database/sql's opener", func(t *testing.T) {
				base := &fakeBase{conns: s.conns, stmts: s.stmts}
				db := wrapped(t, base, managedpg.Config{PoolSize: 1, PoolTimeout: -1})
				db.SetMaxOpenConns(1)
				got := runScript(t, base, db, throughOpener)
				compare(t, "results", got, want)
				compare(t, "calls of the base", without(base.log(), ofPreparing, ofReuse), without(bare.log(), ofPreparing, ofReuse))
			})
		})
	}
}

func wrapped(t *testing.T, base *fakeBase, cfg managedpg.Config) *sql.DB {
	t.Helper()
	cfg.Endpoints = []driver.Connector{base}
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, err := managedpg.OpenDB(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// How a step of the script comes to its connection.
type runner func(t *testing.T, db *sql.DB, step func())

func direct(_ *testing.T, _ *sql.DB, step func()) { step() }

// throughOpener lets the step wait until sql.DB's own goroutine has connected for it: on a pool limited to one connection,
// which is in use when the step begins.
func throughOpener(t *testing.T, db *sql.DB, step func()) {
	occupied, err := db.Conn(t.Context())
	if err != nil {
		t.Error(err)
		return
	}
	waiting := db.Stats().WaitCount
	done := make(chan struct{})
	go func() {
		defer close(done)
		step()
	}()
	for db.Stats().WaitCount == waiting {
		select {
		case <-done: // it didn't need one
			_ = occupied.Close()
			return
		case <-time.After(10 * time.Microsecond):
		}
	}
	_ = occupied.Close()
	<-done
}

// script collects what a program sees.
type script struct {
	t       *testing.T
	db      *sql.DB
	base    *fakeBase
	results []string
}

func runScript(t *testing.T, base *fakeBase, db *sql.DB, run runner) []string {
	t.Helper()
	s := &script{t: t, db: db, base: base}
	for _, step := range steps {
		run(t, db, func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			base.mu.Lock()
			base.cancel = cancel
			base.mu.Unlock()
			step(ctx, s)
		})
		// What a context has ended is ended by a goroutine of database/sql's.
		for db.Stats().InUse > 0 {
			<-time.After(10 * time.Microsecond)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	return s.results
}

func (s *script) say(format string, args ...any) {
	s.results = append(s.results, fmt.Sprintf(format, args...))
}

func (s *script) outcome(what string, err error) {
	s.say("%s: %v (the base's: %v, bad: %v, cancelled: %v)", what, err, errors.Is(err, errFake), errors.Is(err, driver.ErrBadConn),
		errors.Is(err, context.Canceled))
}

type execer2 interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

func (s *script) exec(ctx context.Context, on execer2, query string, args ...any) {
	res, err := on.ExecContext(ctx, query, args...)
	s.result(query, res, err)
}

func (s *script) result(what string, res sql.Result, err error) {
	s.outcome("exec "+what, err)
	if err == nil {
		n, err := res.RowsAffected()
		s.say("%d rows affected, %v", n, err)
		id, err := res.LastInsertId()
		s.say("last insert id %d, %v", id, err)
	}
}

func (s *script) query(ctx context.Context, on execer2, query string, args ...any) {
	rows, err := on.QueryContext(ctx, query, args...)
	s.rows(query, rows, err)
}

func (s *script) rows(what string, rows *sql.Rows, err error) {
	s.outcome("query "+what, err)
	if err != nil {
		return
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		s.outcome("types", err)
		return
	}
	for again := true; again; again = rows.NextResultSet() {
		for rows.Next() {
			var text string
			var n int
			s.outcome("scan", rows.Scan(&text, &n))
			s.say("%s of type %s: %q, %d", types[0].Name(), types[0].DatabaseTypeName(), text, n)
		}
	}
	s.outcome("rows", rows.Err())
}

// valuer is an argument that converts itself.
type valuer struct{}

func (valuer) Value() (driver.Value, error) { return "valued", nil }

var arguments = map[string][]any{
	"none":        nil,
	"plain":       {1, "two", nil, 4.5, []byte("five"), true, time.Unix(0, 0).UTC()},
	"named":       {sql.Named("a", 1), sql.Named("b", "two")},
	"mixed":       {1, sql.Named("b", taken)},
	"taken":       {taken, 2},
	"removed":     {1, removed, 3, removed},
	"unwanted":    {1, unwanted},
	"for stmts":   {forStatement},
	"valuer":      {valuer{}},
	"impossible":  {1, struct{}{}},
	"misnamed":    {sql.Named("1", 1)},
	"named wrong": {sql.Named("a", struct{}{})},
}

var steps = func() (all []func(context.Context, *script)) {
	add := func(f func(context.Context, *script)) { all = append(all, f) }
	names := []string{}
	for name := range arguments {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, word := range []string{"go", "skip", "fail", "skip late fail"} {
		for _, name := range names {
			args := arguments[name]
			if word == "fail" && name != "none" && name != "taken" || word == "skip late fail" && name != "removed" {
				continue // enough of these
			}
			text := word + " " + name
			add(func(ctx context.Context, s *script) { s.exec(ctx, s.db, text, args...) })
			add(func(ctx context.Context, s *script) { s.query(ctx, s.db, text, args...) })
			add(func(ctx context.Context, s *script) {
				st, err := s.db.PrepareContext(ctx, text)
				s.outcome("prepare "+text, err)
				if err != nil {
					return
				}
				defer st.Close()
				res, err := st.ExecContext(ctx, args...)
				s.result("prepared "+text, res, err)
			})
			add(func(ctx context.Context, s *script) {
				st, err := s.db.PrepareContext(ctx, text)
				if err != nil {
					return
				}
				defer st.Close()
				rows, err := st.QueryContext(ctx, args...)
				s.rows("prepared "+text, rows, err)
			})
		}
	}
	add(func(ctx context.Context, s *script) { s.exec(ctx, s.db, "bad") })
	add(func(ctx context.Context, s *script) { s.query(ctx, s.db, "bad") })
	add(func(ctx context.Context, s *script) { s.exec(ctx, s.db, "skip late bad") })
	add(func(ctx context.Context, s *script) { s.query(ctx, s.db, "skip late bad") })
	add(func(ctx context.Context, s *script) { s.outcome("ping", s.db.PingContext(ctx)) })

	// The context ends before, or while the base is busy with a call that doesn't know of contexts.
	add(func(ctx context.Context, s *script) {
		s.base.cancel()
		s.exec(ctx, s.db, "over before")
		s.query(ctx, s.db, "over before")
		s.outcome("ping", s.db.PingContext(ctx))
	})
	add(func(ctx context.Context, s *script) { s.exec(ctx, s.db, "cancel", 1) })
	add(func(ctx context.Context, s *script) { s.exec(ctx, s.db, "skip cancel", 1) })
	add(func(ctx context.Context, s *script) { s.exec(ctx, s.db, "skip late cancel", 1) })

	// A statement knows how many arguments it takes.
	add(func(ctx context.Context, s *script) {
		st, err := s.db.PrepareContext(ctx, "? and ?")
		s.outcome("prepare", err)
		if err != nil {
			return
		}
		defer st.Close()
		for _, args := range [][]any{{1}, {1, 2}, {1, removed, 3}, {1, 2, 3}} {
			res, err := st.ExecContext(ctx, args...)
			s.result("with a count", res, err)
		}
	})

	// Transactions, and statements in them.
	for _, opts := range []*sql.TxOptions{nil, {}, {Isolation: sql.LevelSerializable}, {ReadOnly: true}} {
		for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
			add(func(ctx context.Context, s *script) {
				tx, err := s.db.BeginTx(ctx, opts)
				s.outcome(fmt.Sprintf("begin %+v", opts), err)
				if err != nil {
					return
				}
				s.exec(ctx, tx, "go in tx", 1)
				s.query(ctx, tx, "skip in tx", 1)
				s.exec(ctx, tx, "fail in tx")
				s.outcome("end", end(tx))
				s.outcome("end again", end(tx))
			})
		}
	}
	add(func(ctx context.Context, s *script) {
		st, err := s.db.PrepareContext(ctx, "go prepared for tx")
		s.outcome("prepare", err)
		if err != nil {
			return
		}
		defer st.Close()
		tx, err := s.db.BeginTx(ctx, nil)
		s.outcome("begin", err)
		if err != nil {
			return
		}
		res, err := tx.StmtContext(ctx, st).ExecContext(ctx, 1)
		s.result("in tx", res, err)
		own, err := tx.PrepareContext(ctx, "go prepared in tx")
		s.outcome("prepare in tx", err)
		if err == nil {
			res, err = own.ExecContext(ctx, 1)
			s.result("prepared in tx", res, err)
		}
		s.outcome("commit", tx.Commit())
	})

	// One connection for several calls.
	add(func(ctx context.Context, s *script) {
		c, err := s.db.Conn(ctx)
		s.outcome("conn", err)
		if err != nil {
			return
		}
		defer c.Close()
		s.exec(ctx, c, "go on conn", taken)
		s.exec(ctx, c, "skip on conn", removed)
		s.query(ctx, c, "go on conn", 1)
		s.outcome("ping", c.PingContext(ctx))
		st, err := c.PrepareContext(ctx, "go prepared on conn")
		s.outcome("prepare", err)
		if err == nil {
			res, err := st.ExecContext(ctx, taken)
			s.result("on conn", res, err)
			s.outcome("close", st.Close())
		}
		_ = c.Raw(func(dc any) error {
			if _, ours := dc.(interface {
				Base(context.Context) (driver.Conn, error)
			}); ours {
				dc = managedpg.Unwrap(dc) // of the bare one this would be a call more
			}
			s.say("raw: %T", dc)
			return nil
		})
	})
	return all
}()

// Calls of the base that differ for a reason.
func ofPreparing(call string) bool {
	return strings.HasPrefix(call, "prepare ") || strings.HasPrefix(call, "statement ") && strings.Contains(call, ": close ")
}

func ofReuse(call string) bool {
	return call == "connect" || call == "close" || call == "reset" || call == "valid?"
}

// without leaves calls out, and the numbers of connections and statements, of which there are others then.
func without(calls []string, reasons ...func(string) bool) (rest []string) {
	for _, call := range calls {
		_, call, _ = strings.Cut(call, ": ")
		if slices.ContainsFunc(reasons, func(r func(string) bool) bool { return r(call) }) {
			continue
		}
		if after, ok := strings.CutPrefix(call, "statement "); ok {
			_, call, _ = strings.Cut(after, ": ")
		}
		rest = append(rest, call)
	}
	return rest
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("%s differ at %d:\ngot  %s\nwant %s\nafter %q", what, i, g, w, want[max(0, i-3):min(i, len(want))])
			return
		}
	}
}
