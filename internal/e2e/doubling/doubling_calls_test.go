package doubling_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// lostCall is a call of which the proxy loses an answer.
type lostCall struct {
	name string
	on   func(pgtest.Message) bool // what is not answered
	run  func(context.Context, *lossy) error
	want error // ErrOutcomeUnknown, ErrTxLost, errBase, or nil when nobody is to notice

	inserted, kept int  // rows, if what was not answered ran
	noWait         bool // the server doesn't answer it by itself
}

// errBase stands for the base driver's error, as it is.
var errBase = errors.New("the base driver's own error")

const (
	insert    = "INSERT INTO t (k) VALUES (1)"
	insertArg = "INSERT INTO t (k) VALUES ($1)"
	returning = " RETURNING n"
	twice     = "INSERT INTO t (deferred) VALUES (1), (1)" // which fails at COMMIT
)

var (
	onInsert   = pgtest.OnText("INSERT INTO t (k)")
	onBegin    = onVerb("BEGIN")
	onCommit   = onVerb("COMMIT")
	onRollback = onVerb("ROLLBACK")
	onSelect   = pgtest.OnText("SELECT 1")
	onCopyData = func(m pgtest.Message) bool { return m.Type == 'd' }
)

func onVerb(verb string) func(pgtest.Message) bool {
	return func(m pgtest.Message) bool {
		return (m.Type == 'Q' || m.Type == 'E') && strings.HasPrefix(strings.ToUpper(m.Text), verb)
	}
}

// querier is a sql.DB, sql.Conn or sql.Tx.
type querier interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
	PrepareContext(context.Context, string) (*sql.Stmt, error)
}

// insertForm is a way to run a statement.
type insertForm struct {
	name string
	rows int
	run  func(context.Context, *lossy, querier) error
}

// lost is the call with a sql.DB.
func (f insertForm) lost() lostCall {
	return lostCall{name: f.name, on: onInsert, want: managedpg.ErrOutcomeUnknown, inserted: f.rows, kept: f.rows,
		run: func(ctx context.Context, l *lossy) error { return f.run(ctx, l, l.db) }}
}

// lostInTx is the call with a sql.Tx.
func (f insertForm) lostInTx() lostCall {
	return lostCall{name: f.name + " in a transaction", on: onInsert, want: managedpg.ErrTxLost, inserted: f.rows,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.begin(context.Background())
			err := f.run(ctx, l, tx)
			l.wantError(tx.Commit(), managedpg.ErrTxLost)
			return err
		}}
}

var insertForms = []insertForm{
	{"exec", 1, func(ctx context.Context, l *lossy, q querier) error {
		_, err := q.ExecContext(ctx, insert)
		return err
	}},
	{"exec with argument", 1, func(ctx context.Context, l *lossy, q querier) error {
		_, err := q.ExecContext(ctx, insertArg, 1)
		return err
	}},
	{"exec of three statements", 3, func(ctx context.Context, l *lossy, q querier) error {
		_, err := q.ExecContext(ctx, insert+";"+insert+";"+insert)
		return err
	}},
	{"query", 1, func(ctx context.Context, l *lossy, q querier) error {
		return q.QueryRowContext(ctx, insert+returning).Scan(new(int))
	}},
	{"query with argument", 1, func(ctx context.Context, l *lossy, q querier) error {
		return q.QueryRowContext(ctx, insertArg+returning, 1).Scan(new(int))
	}},
	{"prepared exec", 1, func(ctx context.Context, l *lossy, q querier) error {
		_, err := l.prepare(q, insertArg).ExecContext(ctx, 1)
		return err
	}},
	{"prepared query", 1, func(ctx context.Context, l *lossy, q querier) error {
		return l.prepare(q, insertArg+returning).QueryRowContext(ctx, 1).Scan(new(int))
	}},
}

// lostCalls are all of them.
func lostCalls(base string) []lostCall {
	var calls []lostCall
	for i, f := range insertForms {
		calls = append(calls, f.lost())
		if i%2 == 0 {
			calls = append(calls, f.lostInTx())
		}
	}
	calls = append(calls, lostBetween...)
	calls = append(calls, lostEnds...)
	if base == "pq" {
		calls = append(calls, lostCopies...)
	}
	return calls
}

// lostBetween are statements whose place in a transaction only their texts tell, and what may be repeated.
var lostBetween = []lostCall{
	{name: "exec after BEGIN as text", on: onInsert, want: managedpg.ErrTxLost, inserted: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.conn("BEGIN").ExecContext(ctx, insert)
			return err
		}},
	{name: "exec after a transaction in texts", on: onInsert, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.conn("BEGIN", "SELECT 2", "COMMIT").ExecContext(ctx, insert)
			return err
		}},
	{name: "exec after a COMMIT that failed", on: onInsert, want: managedpg.ErrOutcomeUnknown, inserted: 3, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			c := l.conn("BEGIN", twice)
			if _, err := c.ExecContext(ctx, "COMMIT"); err == nil {
				l.Error("COMMIT succeeded")
			}
			_, err := c.ExecContext(ctx, insert)
			return err
		}},
	{name: "exec after a literal like a BEGIN", on: onInsert, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.conn("SELECT '; begin'").ExecContext(ctx, insert)
			return err
		}},
	{name: "BEGIN", on: onBegin, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			tx, err := l.db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			l.exec(tx, insert)
			return tx.Commit()
		}},
	{name: "prepare", on: pgtest.OnParse("INSERT"), inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			st, err := l.db.PrepareContext(ctx, neverSeen())
			if err != nil {
				return err
			}
			defer st.Close()
			_, err = st.ExecContext(ctx, 1)
			return err
		}},
	{name: "prepare in a transaction", on: pgtest.OnParse("INSERT"), want: managedpg.ErrTxLost,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.begin(context.Background()).PrepareContext(ctx, neverSeen())
			return err
		}},
	{name: "query in a READ ONLY transaction", on: onSelect, want: managedpg.ErrTxLost,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.beginReadOnly(context.Background())
			_, err := tx.ExecContext(ctx, "SELECT 1")
			l.wantError(tx.Commit(), managedpg.ErrTxLost)
			return err
		}},
}

// lostEnds are the ends of transactions.
var lostEnds = []lostCall{
	{name: "COMMIT", on: onCommit, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.begin(ctx)
			l.exec(tx, insert)
			return tx.Commit()
		}},
	{name: "COMMIT as text", on: onCommit, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.conn("BEGIN", insert).ExecContext(ctx, "COMMIT")
			return err
		}},
	{name: "COMMIT as text, prepared", on: onCommit, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.prepare(l.conn("BEGIN", insert), "commit").ExecContext(ctx)
			return err
		}},
	{name: "COMMIT behind an INSERT", on: onInsert, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.begin(context.Background()).ExecContext(ctx, insert+"; /* and now */ commit")
			return err
		}},
	{name: "INSERT behind a ROLLBACK", on: onRollback, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.begin(context.Background()).ExecContext(ctx, "ROLLBACK; "+insert)
			return err
		}},
	{name: "transaction in one text", on: onBegin, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.db.ExecContext(ctx, "BEGIN; "+insert+"; COMMIT")
			return err
		}},
	{name: "ROLLBACK", on: onRollback, want: managedpg.ErrTxLost, inserted: 1,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.begin(ctx)
			l.exec(tx, insert)
			return tx.Rollback()
		}},
	{name: "ROLLBACK as text", on: onRollback, want: managedpg.ErrTxLost, inserted: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.conn("BEGIN", insert).ExecContext(ctx, "ROLLBACK")
			return err
		}},
	{name: "COMMIT of a READ ONLY transaction", on: onCommit, want: managedpg.ErrOutcomeUnknown,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.beginReadOnly(ctx)
			l.exec(tx, "SELECT 1")
			return tx.Commit()
		}},
	{name: "COMMIT of a transaction that was READ ONLY", on: onCommit, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.beginReadOnly(ctx)
			l.exec(tx, "SET TRANSACTION READ WRITE")
			l.exec(tx, insert)
			return tx.Commit()
		}},
	{name: "INSERT behind the COMMIT of a READ ONLY transaction", on: onCommit, want: managedpg.ErrOutcomeUnknown, inserted: 1, kept: 1,
		run: func(ctx context.Context, l *lossy) error {
			_, err := l.beginReadOnly(context.Background()).ExecContext(ctx, "COMMIT; "+insert)
			return err
		}},
}

// lostCopies are lib/pq's.
var lostCopies = []lostCall{
	{name: "COPY", on: pgtest.OnQuery("COPY"), want: managedpg.ErrTxLost,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.begin(context.Background())
			_, err := tx.PrepareContext(ctx, "COPY t (k) FROM STDIN")
			l.wantError(tx.Commit(), managedpg.ErrTxLost)
			return err
		}},
	{name: "end of a COPY", on: onCopyData, noWait: true, want: managedpg.ErrTxLost, inserted: 1,
		run: func(ctx context.Context, l *lossy) error {
			tx := l.begin(context.Background())
			st := l.prepare(tx, "COPY t (k) FROM STDIN")
			if _, err := st.Exec(1); err != nil {
				l.Error(err)
			}
			_, err := st.ExecContext(ctx)
			l.wantError(tx.Commit(), managedpg.ErrTxLost)
			return err
		}},
}

var seen atomic.Int64

// neverSeen is an INSERT that no connection has prepared yet.
func neverSeen() string { return fmt.Sprintf("%s -- %d", insertArg, seen.Add(1)) }

// lossy is a sql.DB whose connections lead through a proxy that loses answers, and a table t of its own. What the table
// numbers its rows with counts those too that were rolled back.
type lossy struct {
	*testing.T // of the call at hand
	base       string
	governed   bool // by the driver
	db         *sql.DB
	proxy      *pgtest.Proxy
	direct     *sql.DB // past the proxy
	name       string  // the schema, and the application_name
}

// eachPool runs a test with both base drivers and both policies.
func eachPool(t *testing.T, test func(*testing.T, *lossy), opts ...pgtest.ProxyOption) {
	t.Parallel()
	dsn := pgtest.Database(t)
	t.Run("each", func(t *testing.T) { // done when all of them are, and before the database goes
		for _, base := range []string{"pgx", "pq"} {
			for _, governed := range []bool{false, true} {
				name := base + ", database/sql governs"
				if governed {
					name = base + ", the driver governs"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					l := newLossy(t, dsn, base, governed, opts...)
					t.Cleanup(l.wantFigures)
					test(t, l)
				})
			}
		}
	})
}

func newLossy(t *testing.T, dsn, base string, governed bool, opts ...pgtest.ProxyOption) *lossy {
	t.Helper()
	proxy := pgtest.NewProxy(t, pgtest.Shared(t).Addr(), opts...)
	params := "&base_driver=" + base + "&health_check=false"
	if governed {
		params += "&pool_size=4&max_overflow=0"
	}
	l := openLossy(t, "managedpg", dsn, proxy.DSN(dsn), params)
	l.base, l.governed, l.proxy = base, governed, proxy
	l.db.SetMaxIdleConns(4)
	return l
}

// openLossy opens a database under its DSN and past it, and makes the table.
func openLossy(t *testing.T, driver, direct, dsn, params string) *lossy {
	t.Helper()
	l := &lossy{T: t, name: fmt.Sprintf("s%d", seen.Add(1))}
	own := "&search_path=" + l.name + "&application_name="
	l.direct = rig.OpenWith(t, "pgx", direct+own+"direct&synchronous_commit=local")
	l.exec(l.direct, "CREATE SCHEMA "+l.name)
	l.exec(l.direct, "CREATE TABLE t (k int, n serial, deferred int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
	l.exec(l.direct, "CREATE UNIQUE INDEX ON t (k) WHERE k > 1")
	l.db = rig.OpenWith(t, driver, dsn+own+l.name+params)
	return l
}

// as is for a call of its own.
func (l *lossy) as(t *testing.T) *lossy {
	mine := *l
	mine.T = t
	return &mine
}

// lose makes a call of which the answer is lost, and says how many rows that has left and inserted.
func (l *lossy) lose(ctx context.Context, c lostCall, f pgtest.Fault) (kept, inserted int, err error) {
	l.Helper()
	// What was sent of a COPY that was not waited for may still be read, and count as inserted.
	l.eventually("no COPY is under way", func() bool { return l.count("query LIKE 'COPY%' AND state = 'active'") == 0 })
	keptBefore, insertedBefore := l.rows()
	f.On = c.on
	f.NoWait = f.NoWait || c.noWait
	l.proxy.Arm(f)
	err = c.run(ctx, l)
	select {
	case <-l.proxy.Fired():
	case <-time.After(10 * time.Second):
		l.Fatalf("no answer was lost; the call returned %v", err)
	}
	kept, inserted = l.rows()
	return kept - keptBefore, inserted - insertedBefore, err
}

// rows counts the rows that are there, and those that ever were.
func (l *lossy) rows() (kept, inserted int) {
	l.Helper()
	err := l.direct.QueryRow("SELECT (SELECT count(*) FROM t), (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM t_n_seq)").
		Scan(&kept, &inserted)
	if err != nil {
		l.Fatal(err)
	}
	return kept, inserted
}

func (l *lossy) begin(ctx context.Context) *sql.Tx { return l.beginTx(ctx, nil) }

func (l *lossy) beginReadOnly(ctx context.Context) *sql.Tx {
	return l.beginTx(ctx, &sql.TxOptions{ReadOnly: true})
}

func (l *lossy) beginTx(ctx context.Context, opts *sql.TxOptions) *sql.Tx {
	l.Helper()
	tx, err := l.db.BeginTx(ctx, opts)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { tx.Rollback() })
	return tx
}

// conn is a connection on which some texts have run.
func (l *lossy) conn(texts ...string) *sql.Conn {
	l.Helper()
	c, err := l.db.Conn(context.Background())
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	for _, text := range texts {
		l.exec(c, text)
	}
	return c
}

func (l *lossy) prepare(q querier, query string) *sql.Stmt {
	l.Helper()
	st, err := q.PrepareContext(context.Background(), query)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { st.Close() })
	return st
}

func (l *lossy) exec(q querier, query string) {
	l.Helper()
	if _, err := q.ExecContext(context.Background(), query); err != nil {
		l.Fatalf("%s: %v", query, err)
	}
}

func (l *lossy) wantError(err, want error) {
	l.Helper()
	var lost *conn.LostError
	isLost := errors.As(err, &lost)
	switch {
	case want == nil:
		if err != nil {
			l.Errorf("got %v", err)
		}
	case err == nil:
		l.Errorf("no error, want %v", want)
	case errors.Is(err, driver.ErrBadConn):
		l.Errorf("got driver.ErrBadConn in %v", err)
	case want == errBase:
		if isLost {
			l.Errorf("got %v, want what the base driver said", err)
		}
	case !errors.Is(err, want) || !isLost || lost.Kind != want || lost.Endpoint == "" || lost.Err == nil:
		l.Errorf("got %v, want %v", err, want)
	}
}

func (l *lossy) wantRows(kept, inserted int, c lostCall) {
	l.Helper()
	if kept != c.kept || inserted != c.inserted && !(c.noWait && inserted < c.inserted) {
		l.Errorf("kept %d of %d rows inserted; want %d of %d", kept, inserted, c.kept, c.inserted)
	}
}

// goesOn checks that the pool goes on as if nothing had happened.
func (l *lossy) goesOn() {
	l.Helper()
	for range 2 {
		l.exec(l.db, "SELECT 2")
	}
}

// wantFigures checks that whatever was lost was given back too.
func (l *lossy) wantFigures() {
	l.Helper()
	pool, ok := managedpg.PoolOf(l.db)
	if !ok {
		l.Fatal("no pool")
	}
	l.eventually("all connections are given back", func() bool {
		s := pool.Stats()
		return s.CheckedOut == 0 && s.TotalCheckouts == s.TotalCheckins &&
			s.TotalConnectionsCreated == s.TotalConnectionsClosed+s.Open
	})
}

func (l *lossy) eventually(what string, holds func() bool) {
	l.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.Errorf("not so: %s", what)
			return
		}
	}
}

func (l *lossy) policy() int {
	if l.governed {
		return 1
	}
	return 0
}

// deadline is a context whose deadline passes when the function is called.
func deadline() (context.Context, func()) {
	passed := make(chan struct{})
	return passing{context.Background(), passed}, func() { close(passed) }
}

type passing struct {
	context.Context
	passed chan struct{}
}

func (c passing) Deadline() (time.Time, bool) { return time.Now().Add(time.Hour), true }
func (c passing) Done() <-chan struct{}       { return c.passed }

func (c passing) Err() error {
	select {
	case <-c.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// count counts the sessions of the database's own of which a condition holds.
func (l *lossy) count(condition string) (n int) {
	l.Helper()
	err := l.direct.QueryRow("SELECT count(*) FILTER (WHERE "+condition+") FROM pg_stat_activity "+
		"WHERE application_name = $1 AND pid <> pg_backend_pid()", l.name).Scan(&n)
	if err != nil {
		l.Error(err)
	}
	return n
}
