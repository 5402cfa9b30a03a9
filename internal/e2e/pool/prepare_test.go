package pool_test

import (
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// databases opens a database of its own with the bare driver and with both policies over it, for each base, with two connections.
func databases(t *testing.T, test func(t *testing.T, db *sql.DB, dsn string)) {
	for base, bare := range map[string]string{"pgx": "pgx", "pq": "postgres"} {
		t.Run(base+"/bare", func(t *testing.T) {
			dsn := pgtest.Database(t)
			db := rig.OpenWith(t, bare, dsn)
			db.SetMaxOpenConns(2)
			test(t, db, dsn)
		})
		for _, keys := range [][]string{nil, {"pool_size=2", "max_overflow=0"}} {
			t.Run(fmt.Sprint(base, keys), func(t *testing.T) {
				dsn := pgtest.Database(t)
				db := rig.Open(t, rig.WithKeys(dsn, append(keys, "base_driver="+base)...))
				if keys == nil {
					db.SetMaxOpenConns(2)
				}
				test(t, db, dsn)
			})
		}
	}
}

// prepared runs a statement on both connections, by a sql.Stmt of its own.
func prepared(db *sql.DB, query string, args ...any) error {
	st, err := db.Prepare(query)
	if err != nil {
		return err
	}
	defer st.Close()
	var both sync.WaitGroup
	errs := make(chan error, 4)
	for range cap(errs) {
		both.Go(func() {
			_, err := st.Exec(args...)
			errs <- err
		})
	}
	both.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// A Prepare after the schema has changed is of the schema as it is, and not of one that a connection has kept a statement of.
func TestPrepareAfterASchemaChange(t *testing.T) {
	for name, c := range map[string]struct {
		before, change, query string
		first, then           any
		want                  string
	}{
		"int to bigint":  {"a int", "ALTER TABLE t ALTER a TYPE bigint", "INSERT INTO t VALUES ($1)", 1, int64(5_000_000_000), "5000000000"},
		"int to text":    {"a int", "ALTER TABLE t ALTER a TYPE text", "INSERT INTO t VALUES ($1)", 1, "x", "x"},
		"real to double": {"a real", "ALTER TABLE t ALTER a TYPE double precision", "INSERT INTO t VALUES ($1)", 1.5, 0.1, "0.1"},
		"an enum made anew": {"a e", "DROP TABLE t; DROP TYPE e; CREATE TYPE e AS ENUM ('old', 'new'); CREATE TABLE t (a e)",
			"INSERT INTO t VALUES ($1)", "old", "new", "new"},
		"timestamp to timestamptz": {"a timestamp", "ALTER TABLE t ALTER a TYPE timestamptz", "INSERT INTO t VALUES ($1)",
			"2020-01-01 00:00:00", "2020-01-01 12:00:00+05", "2020-01-01 07:00:00+00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			databases(t, func(t *testing.T, db *sql.DB, dsn string) {
				elsewhere := rig.OpenWith(t, "pgx", rig.WithKeys(dsn, "timezone=UTC"))
				rig.Exec(t, elsewhere, "CREATE TYPE e AS ENUM ('old')")
				rig.Exec(t, elsewhere, "CREATE TABLE t ("+c.before+")")
				rig.NoError(t, prepared(db, c.query, c.first))
				rig.Exec(t, elsewhere, c.change)
				rig.Exec(t, elsewhere, "TRUNCATE t")
				if err := prepared(db, c.query, c.then); err != nil {
					t.Errorf("after the change: %v", err)
				}
				if got := rig.Value[string](t, elsewhere, "SELECT min(a)::text FROM t"); got != c.want {
					t.Errorf("stored %s, want %s", got, c.want)
				}
			})
		})
	}
}

// Whoever makes the server forget its prepared statements, in whatever text, costs nobody a call.
func TestStatementsForgottenByTheServer(t *testing.T) {
	databases(t, func(t *testing.T, db *sql.DB, _ string) {
		st, err := db.Prepare("SELECT $1::int")
		rig.NoError(t, err)
		defer st.Close()
		for _, forget := range []string{
			"SELECT 1", "DISCARD ALL", "RESET ALL; DEALLOCATE ALL", "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
		} {
			c, err := db.Conn(t.Context())
			rig.NoError(t, err)
			for range 2 {
				_, err = c.ExecContext(t.Context(), forget)
				rig.NoError(t, err)
			}
			rig.NoError(t, c.Close())
			for range 4 {
				var n int
				switch err := st.QueryRow(7).Scan(&n); {
				case err == nil && n == 7:
				case strings.HasSuffix(t.Name(), "/bare"):
					t.Logf("after %s: %v", forget, err)
				default:
					t.Errorf("after %s: %v", forget, err)
				}
			}
		}
	})
}

// What a call did wrong says nothing against its statement, which stays prepared.
func TestAStatementOutlivesItsCallsErrors(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			db := rig.Open(t, rig.WithKeys(pgtest.Database(t), "base_driver="+base, "pool_size=1", "max_overflow=0"))
			rig.Exec(t, db, "CREATE TABLE ones(n int PRIMARY KEY)")
			st, err := db.Prepare("INSERT INTO ones VALUES ($1)")
			rig.NoError(t, err)
			defer st.Close()
			prepared := func() string {
				return rig.Value[string](t, db, "SELECT string_agg(name || prepare_time, ' ') FROM pg_prepared_statements WHERE statement LIKE 'INSERT%'")
			}
			_, err = st.Exec(1)
			rig.NoError(t, err)
			before := prepared()
			for range 3 {
				if _, err := st.Exec(1); rig.SQLState(err) != "23505" {
					t.Fatal(err)
				}
				if now := prepared(); now != before {
					t.Fatalf("prepared %q, before %q", now, before)
				}
			}
		})
	}
}
