package managedpg_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/DATA-DOG/go-sqlmock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestValuesRoundTrip(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		at := time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC)
		rig.Exec(t, db, `CREATE TABLE v (i int, b bigint, f float8, s text, y bytea, o bool, at timestamptz, n text)`)
		res, err := db.Exec(`INSERT INTO v VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			1, int64(1)<<40, 2.5, "it's", []byte{0, 1, 255}, true, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := res.RowsAffected(); n != 1 || err != nil {
			t.Errorf("RowsAffected is %d, %v", n, err)
		}
		var (
			i  int
			b  int64
			f  float64
			s  string
			y  []byte
			o  bool
			ts time.Time
			n  sql.NullString
		)
		if err := db.QueryRow(`SELECT * FROM v WHERE i = $1`, 1).Scan(&i, &b, &f, &s, &y, &o, &ts, &n); err != nil {
			t.Fatal(err)
		}
		if i != 1 || b != 1<<40 || f != 2.5 || s != "it's" || !slices.Equal(y, []byte{0, 1, 255}) || !o || !ts.Equal(at) || n.Valid {
			t.Error("came back as", i, b, f, s, y, o, ts, n)
		}
		if err := db.QueryRow(`SELECT 1 WHERE false`).Scan(&i); !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("no rows gives %v", err)
		}
	})
}

// TestTransparentRows compares what rows tell of themselves with the bare driver's.
func TestTransparentRows(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		bareName := map[string]string{"pgx": "pgx", "pq": "postgres"}[c.Base]
		bare, err := sql.Open(bareName, pgtest.Shared(t).DSN())
		if err != nil {
			t.Fatal(err)
		}
		defer bare.Close()
		describe := func(db *sql.DB) (all []string) {
			rows, err := db.Query(`SELECT 1::int4 AS a, 'x'::varchar(7) AS b, 1.5::numeric(10,2) AS c, now() AS d, '{}'::jsonb AS e`)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			types, err := rows.ColumnTypes()
			if err != nil {
				t.Fatal(err)
			}
			for _, ct := range types {
				length, hasLength := ct.Length()
				precision, scale, hasScale := ct.DecimalSize()
				all = append(all, fmt.Sprint(ct.Name(), ct.DatabaseTypeName(), ct.ScanType(), length, hasLength, precision, scale, hasScale))
			}
			return all
		}
		if got, want := describe(db), describe(bare); !slices.Equal(got, want) {
			t.Errorf("columns:\n%v\nbare:\n%v", got, want)
		}
		sets := func(db *sql.DB) (all []int) {
			rows, err := db.Query(`SELECT 1; SELECT 2 UNION ALL SELECT 3`)
			if err != nil {
				return []int{-1}
			}
			defer rows.Close()
			for more := true; more; more = rows.NextResultSet() {
				for rows.Next() {
					var n int
					if err := rows.Scan(&n); err != nil {
						t.Fatal(err)
					}
					all = append(all, n)
				}
				all = append(all, 0)
			}
			return all
		}
		if got, want := sets(db), sets(bare); !slices.Equal(got, want) {
			t.Errorf("result sets %v, bare %v", got, want)
		}
	})
}

func TestTransactions(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		rig.Exec(t, db, `CREATE TABLE tx (i int)`)
		for _, commit := range []bool{true, false} {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			rig.Exec(t, tx, `INSERT INTO tx VALUES (1)`)
			end := tx.Rollback
			if commit {
				end = tx.Commit
			}
			if err := end(); err != nil {
				t.Fatal(err)
			}
		}
		if n := rig.Value[int](t, db, `SELECT count(*) FROM tx`); n != 1 {
			t.Errorf("%d rows after a commit and a rollback", n)
		}

		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if level := rig.Value[string](t, tx, `SHOW transaction_isolation`); level != "serializable" {
			t.Errorf("isolation %q", level)
		}
		_, err = tx.Exec(`INSERT INTO tx VALUES (2)`)
		rig.WantSQLState(t, c, err, "25006")
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}

		// An error inside: COMMIT says so, and the connection goes on.
		tx, err = db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(`SELECT 1 / 0`)
		rig.WantSQLState(t, c, err, "22012")
		if err := tx.Commit(); err == nil {
			t.Error("COMMIT of a failed transaction succeeds")
		} else if errors.Is(err, managedpg.ErrOutcomeUnknown) || errors.Is(err, managedpg.ErrTxLost) {
			t.Errorf("COMMIT of a failed transaction: %v", err)
		}
		rig.Value[int](t, db, `SELECT 1`)
	})
}

func TestPreparedStatements(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		st, err := db.Prepare(`SELECT $1::int + 1`)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		var group sync.WaitGroup
		for i := range 16 {
			group.Go(func() {
				for range 20 {
					var n int
					if err := st.QueryRow(i).Scan(&n); err != nil || n != i+1 {
						t.Errorf("%d + 1 is %d, %v", i, n, err)
						return
					}
				}
			})
		}
		group.Wait()

		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		var n int
		if err := tx.Stmt(st).QueryRow(1).Scan(&n); err != nil || n != 2 {
			t.Errorf("in a transaction: %d, %v", n, err)
		}
		if _, err := st.Query(); err == nil {
			t.Error("a missing argument is no error")
		}
		if _, err := db.Prepare(`SELECT FROM WHERE`); err == nil {
			t.Error("a syntax error is no error")
		}
	})
}

func TestContextEndsRunningStatement(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, _ rig.Combination, db *sql.DB) {
		rig.Exec(t, db, `SELECT 1`)
		for name, run := range map[string]func(context.Context) error{
			"exec": func(ctx context.Context) error {
				_, err := db.ExecContext(ctx, `SELECT pg_sleep(60)`)
				return err
			},
			"query": func(ctx context.Context) error {
				rows, err := db.QueryContext(ctx, `SELECT pg_sleep(60)`)
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
				}
				return rows.Err()
			},
			"transaction": func(ctx context.Context) error {
				tx, err := db.BeginTx(ctx, nil)
				if err != nil {
					return err
				}
				defer tx.Rollback()
				_, err = tx.ExecContext(ctx, `SELECT pg_sleep(60)`)
				return err
			},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			err := run(ctx)
			cancel()
			if err == nil {
				t.Errorf("%s: no error", name)
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: the context's error is not in %v", name, err)
			}
			if errors.Is(err, driver.ErrBadConn) {
				t.Errorf("%s: ErrBadConn in %v", name, err)
			}
			rig.Value[int](t, db, `SELECT 1`)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := db.ExecContext(ctx, `SELECT 1`); err != context.Canceled {
			t.Errorf("a context that has ended gives %v", err)
		}
	})
}

// TestConnectObeysContext dials a server that accepts and says nothing.
func TestConnectObeysContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			db := rig.Open(t, c.DSN("postgres://u:sekret@"+silent.Addr().String()+"/d?sslmode=disable"))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := db.ExecContext(ctx, `SELECT 1`)
			if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "sekret") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}

			db = rig.Open(t, c.DSN("postgres://u:sekret@"+silent.Addr().String()+"/d?sslmode=disable", "connect_timeout=50ms"))
			if _, err := db.Exec(`SELECT 1`); err == nil || strings.Contains(err.Error(), "sekret") {
				t.Errorf("connect_timeout gives %v", err)
			}
		})
	}
}

func TestRawAndUnwrap(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, db *sql.DB) {
		rig.Exec(t, db, `CREATE TABLE raw (i int)`)
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = conn.Raw(func(driverConn any) error {
			base := managedpg.Unwrap(driverConn)
			if c.Base == "pq" {
				if typ := reflect.TypeOf(base).String(); typ != "*pq.conn" {
					return fmt.Errorf("the base connection is a %s", typ)
				}
				return nil
			}
			_, err := base.(*stdlib.Conn).Conn().CopyFrom(t.Context(), pgx.Identifier{"raw"}, []string{"i"},
				pgx.CopyFromRows([][]any{{1}, {2}, {3}}))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := rig.Value[int](t, conn, `SELECT count(*) FROM raw`); c.Base == "pgx" && n != 3 {
			t.Errorf("CopyFrom wrote %d rows", n)
		}
	})
	if managedpg.Unwrap(42) != 42 {
		t.Error("Unwrap changes what isn't ours")
	}
}

func TestPgxNamedArguments(t *testing.T) {
	for _, c := range rig.Combinations[:2] {
		db := rig.Open(t, c.DSN(pgtest.Database(t)))
		var sum int
		if err := db.QueryRow(`SELECT @a::int + @b::int`, pgx.NamedArgs{"a": 1, "b": 2}).Scan(&sum); err != nil || sum != 3 {
			t.Errorf("%v: %d, %v", c, sum, err)
		}
		var list []int32
		if err := db.QueryRow(`SELECT $1::int[]`, []int32{1, 2}).Scan(pgtype.NewMap().SQLScanner(&list)); err != nil || !slices.Equal(list, []int32{1, 2}) {
			t.Errorf("%v: %v, %v", c, list, err)
		}
	}
}

func TestPqCopyIn(t *testing.T) {
	for _, c := range rig.Combinations[2:] {
		db := rig.Open(t, c.DSN(pgtest.Database(t)))
		rig.Exec(t, db, `CREATE TABLE c (i int, s text)`)
		for range 2 { // the statement of the first must not be found again
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			st, err := tx.Prepare("COPY c (i, s) FROM STDIN")
			if err != nil {
				t.Fatal(err)
			}
			for i := range 100 {
				if _, err := st.Exec(i, "x"); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := st.Exec(); err != nil {
				t.Fatal(err)
			}
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if n := rig.Value[int](t, db, `SELECT count(*) FROM c`); n != 200 {
			t.Errorf("%v: %d rows", c, n)
		}
		rig.Exec(t, db, `SELECT * FROM unnest($1::int[])`, pq.Array([]int{1, 2}))
	}
}

func TestPoolsAndNames(t *testing.T) {
	dsn := rig.WithKeys(pgtest.Database(t), "pool_name=names")
	first, second := rig.Open(t, dsn), rig.Open(t, dsn)
	p1, ok1 := managedpg.PoolOf(first)
	p2, ok2 := managedpg.PoolOf(second)
	if !ok1 || !ok2 || p1.Name() != "names" || p2.Name() != "names#2" {
		t.Fatalf("pools are named %q, %q", p1.Name(), p2.Name())
	}
	names := func() (all []string) {
		for _, s := range managedpg.Stats() {
			if strings.HasPrefix(s.Name, "names") {
				all = append(all, s.Name)
			}
		}
		return all
	}
	if got := names(); !slices.Equal(got, []string{"names", "names#2"}) {
		t.Errorf("Stats has %v", got)
	}
	if !slices.Contains(managedpg.Pools(), p1) {
		t.Error("Pools lacks an open pool")
	}
	_ = first.Close()
	if got := names(); !slices.Equal(got, []string{"names#2"}) {
		t.Errorf("after Close Stats has %v", got)
	}
	if _, err := first.Exec(`SELECT 1`); err == nil {
		t.Error("a closed DB works")
	}
	bare, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	if _, ok := managedpg.PoolOf(bare); ok {
		t.Error("PoolOf finds a pool behind pgx")
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	rig.InEachCombination(t, func(t *testing.T, c rig.Combination, _ *sql.DB) {
		server := pgtest.Shared(t)
		app := "application_name=close_" + c.Base + fmt.Sprint(c.Governed)
		db := rig.Open(t, c.DSN(pgtest.Database(t), app))
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() { rig.Exec(t, db, `SELECT pg_sleep(0.05)`) })
		}
		group.Wait()
		borrowed, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("Close took %v: it waits for borrowers", took)
		}
		_ = borrowed.Close()
		backends := fmt.Sprintf(`SELECT count(*) FROM pg_stat_activity WHERE application_name = '%s'`, strings.TrimPrefix(app, "application_name="))
		rig.Eventually(t, "no backend is left", func() bool {
			n, err := server.QueryString(backends)
			return err == nil && n == "0"
		})
	})
}

// Whoever asks a closed pool for something is told that it is closed, in one way.
func TestClosedPool(t *testing.T) {
	for _, keys := range []string{"pool_size=2", "pool_size=none"} {
		db := rig.Open(t, rig.WithKeys(pgtest.Database(t), keys))
		pool := rig.PoolOf(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := pool.Connect(t.Context()); !errors.Is(err, managedpg.ErrClosed) {
			t.Errorf("%s: a checkout gets %v", keys, err)
		}
		if err := pool.Failback(t.Context()); !errors.Is(err, managedpg.ErrClosed) {
			t.Errorf("%s: Failback says %v", keys, err)
		}
	}
}

func TestOpenDBWithHooks(t *testing.T) {
	cfg, err := managedpg.ParseDSN(rig.WithKeys(pgtest.Database(t), "pool_size=2"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	configured, connected := 0, 0
	cfg.PgxConfig = func(c *pgx.ConnConfig) error {
		configured++
		c.RuntimeParams["application_name"] = "hooked"
		return nil
	}
	cfg.OnConnect = func(ctx context.Context, c driver.Conn) error {
		mu.Lock()
		defer mu.Unlock()
		connected++
		_, err := c.(driver.ExecerContext).ExecContext(ctx, `SET search_path = pg_catalog`, nil)
		return err
	}
	db, err := managedpg.OpenDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if app := rig.Value[string](t, db, `SHOW application_name`); app != "hooked" || configured != 1 {
		t.Errorf("application_name is %q after %d calls of PgxConfig", app, configured)
	}
	if path := rig.Value[string](t, db, `SHOW search_path`); path != "pg_catalog" || connected != 1 {
		t.Errorf("search_path is %q after %d calls of OnConnect", path, connected)
	}

	failing := errors.New("no thanks")
	cfg.OnConnect = func(context.Context, driver.Conn) error { return failing }
	refused, err := managedpg.OpenDB(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Close()
	if err := refused.Ping(); !errors.Is(err, failing) {
		t.Errorf("OnConnect's error comes back as %v", err)
	}
}

// TestEndpointsOfOnesOwn puts managedpg around go-sqlmock and around a connector of pgx's.
func TestEndpointsOfOnesOwn(t *testing.T) {
	mockDB, mock, err := sqlmock.NewWithDSN("mock")
	if err != nil {
		t.Fatal(err)
	}
	defer mockDB.Close()
	mock.ExpectBegin()
	mock.ExpectExec("UPDATE").WithArgs(7).WillReturnResult(sqlmock.NewResult(0, 3))
	mock.ExpectCommit()
	mock.ExpectQuery("SELECT").WillReturnRows(sqlmock.NewRows([]string{"n"}).AddRow(42))
	db, err := managedpg.OpenDB(&managedpg.Config{
		Endpoints: []driver.Connector{rig.LegacyConnector{Via: mockDB.Driver(), DSN: "mock"}}, PoolSize: 2, PoolTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	rig.Exec(t, tx, "UPDATE t SET a = $1", 7)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := rig.Value[int](t, db, "SELECT n FROM t"); n != 42 {
		t.Errorf("got %d", n)
	}
	if err := mock.ExpectationsWereMet(); err != nil {
		t.Error(err)
	}

	pgxConfig, err := pgx.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	own, err := managedpg.OpenDB(&managedpg.Config{Endpoints: []driver.Connector{stdlib.GetConnector(*pgxConfig)}})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if n := rig.Value[int](t, own, `SELECT $1::int`, 7); n != 7 {
		t.Errorf("got %d", n)
	}
	if _, err := managedpg.OpenDB(&managedpg.Config{}); err == nil {
		t.Error("a Config without DSN and Endpoints is no error")
	}
}

// TestDriverOpen is for callers that know only driver.Driver's Open.
func TestDriverOpen(t *testing.T) {
	db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "pool_name=legacy"))
	dsn := rig.WithKeys(pgtest.Database(t), "pool_size=1", "pool_name=shared")
	c, err := db.Driver().Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(driver.Pinger).Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := db.Driver().Open("postgres://:::"); err == nil {
		t.Error("a wrong DSN is no error")
	}
	for _, p := range managedpg.Pools() {
		if p.Name() == "shared" {
			_ = p.Close()
		}
	}
}
