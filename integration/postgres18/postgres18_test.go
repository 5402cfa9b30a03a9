// Package postgres18 runs managedpg against PostgreSQL 18, the newest; all other tests take the one that is installed.
package postgres18

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// binaries is where .ci/prepare puts them. They lack pg_basebackup.
const binaries = "/var/cache/managedpg/postgresql-18/bin"

//go:embed pg_basebackup.sh
var basebackup []byte

func TestMain(m *testing.M) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	dir, err := completed()
	if err != nil {
		fmt.Fprintln(os.Stderr, "PostgreSQL 18 is installed by .ci/prepare postgresql-18:", err)
		os.Exit(1)
	}
	os.Setenv("MANAGEDPG_PG_BIN", dir)
	goleak.VerifyTestMain(pgtest.Suite(m), goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// completed is a folder of the binaries with a pg_basebackup.
func completed() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "managedpg-postgres18"); err != nil {
		return "", err
	}
	err = os.Chmod(dir, 0o755) // whoever runs the server must come in
	for _, name := range []string{"initdb", "postgres"} {
		path, evalErr := filepath.EvalSymlinks(filepath.Join(binaries, name))
		err = errors.Join(err, evalErr, os.Symlink(path, filepath.Join(dir, name)))
	}
	return dir, errors.Join(err, os.WriteFile(filepath.Join(dir, "pg_basebackup"), basebackup, 0o755))
}

// combinations are the base drivers and the governors of the pool. pgx speaks the protocol's version 3.2, which is new.
var combinations = []string{
	"base_driver=pgx&pool_size=4&max_protocol_version=3.2", "base_driver=pgx&max_protocol_version=3.2",
	"base_driver=pq&pool_size=4", "base_driver=pq",
}

func open(t *testing.T, dsn string) (*sql.DB, *managedpg.Pool) {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	pool, _ := managedpg.PoolOf(db)
	return db, pool
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Statements, prepared ones, transactions, errors, cancellation.
func TestStatements(t *testing.T) {
	for _, keys := range combinations {
		t.Run(keys, func(t *testing.T) {
			ctx := context.Background()
			db, pool := open(t, pgtest.Database(t)+"&"+keys)
			var version int
			must(t, db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version))
			if version/10000 != 18 {
				t.Fatalf("this is version %d", version)
			}
			_, err := db.ExecContext(ctx, `CREATE TABLE item (id uuid PRIMARY KEY DEFAULT uuidv7(), name text UNIQUE,
				price int, doubled int GENERATED ALWAYS AS (price * 2) VIRTUAL)`)
			must(t, err)
			stmt, err := db.PrepareContext(ctx, "INSERT INTO item (name, price) VALUES ($1, $2) RETURNING OLD.name, NEW.id::text, doubled")
			must(t, err)
			defer stmt.Close()
			for i, name := range []string{"apple", "pear"} {
				var before, id sql.NullString
				var doubled int
				must(t, stmt.QueryRowContext(ctx, name, i+1).Scan(&before, &id, &doubled))
				if before.Valid || len(id.String) != 36 || doubled != 2*(i+1) {
					t.Error(before, id, doubled)
				}
			}

			err = managedpg.InTx(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "DELETE FROM item"); err != nil {
					return err
				}
				_, err := tx.ExecContext(ctx, "INSERT INTO item (name) VALUES ('fig'), ('fig')")
				return err
			})
			var ofPgx *pgconn.PgError
			var ofPq *pq.Error
			if !(errors.As(err, &ofPgx) && ofPgx.Code == "23505") && !(errors.As(err, &ofPq) && ofPq.Code == "23505") {
				t.Errorf("a second fig: %v", err)
			}
			var n int
			must(t, db.QueryRowContext(ctx, "SELECT count(*) FROM item").Scan(&n))
			if n != 2 {
				t.Errorf("%d rows after a rollback", n)
			}

			short, cancel := context.WithCancel(ctx)
			defer cancel()
			result := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(short, "SELECT pg_sleep(600)")
				result <- err
			}()
			eventually(t, "it sleeps", func() bool { return sleepers(t, db) == 1 })
			cancel()
			if err := <-result; !errors.Is(err, context.Canceled) {
				t.Errorf("a cancelled call: %v", err)
			}
			eventually(t, "the server has given it up", func() bool { return sleepers(t, db) == 0 })

			h := pool.CheckNow(ctx).Endpoints[0]
			if h.State != failover.Up || h.Role != failover.ReadWrite || h.Timeline != 1 || h.Note != "" {
				t.Errorf("health: %+v", h)
			}
		})
	}
}

func sleepers(t *testing.T, db *sql.DB) (n int) {
	err := db.QueryRow(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND
		query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()`).Scan(&n)
	if err != nil {
		t.Error(err)
	}
	return n
}

// The primary dies, the standby is promoted, the old primary comes back as it was and is not written to.
func TestFailover(t *testing.T) {
	for _, keys := range combinations {
		t.Run(keys, func(t *testing.T) {
			ctx := context.Background()
			primary := pgtest.Start(t)
			standby, err := primary.Standby()
			must(t, err)
			defer standby.Close()
			dsn := strings.Replace(primary.DSN(), primary.Addr(), primary.Addr()+","+standby.Addr(), 1)
			db, pool := open(t, dsn+"&"+keys)
			_, err = db.ExecContext(ctx, "CREATE TABLE fruit (name text)")
			must(t, err)
			eventually(t, "the standby has the table", func() bool {
				n, err := standby.QueryString("SELECT count(*) FROM pg_tables WHERE tablename = 'fruit'")
				return err == nil && n == "1"
			})
			tx, err := db.BeginTx(ctx, nil)
			must(t, err)
			_, err = tx.ExecContext(ctx, "INSERT INTO fruit VALUES ('fig')")
			must(t, err)
			must(t, primary.Kill())
			must(t, standby.Promote())
			if _, err := tx.ExecContext(ctx, "INSERT INTO fruit VALUES ('kiwi')"); !errors.Is(err, managedpg.ErrTxLost) {
				t.Errorf("in a transaction that died: %v", err)
			}
			_ = tx.Rollback()
			_, err = db.ExecContext(ctx, "INSERT INTO fruit VALUES ('apple')")
			must(t, err)

			must(t, primary.Restart())
			h := pool.CheckNow(ctx).Endpoints
			if h[0].State != failover.Up || !h[0].Fenced || h[0].Timeline != 1 || h[1].Timeline != 2 {
				t.Errorf("health: %+v", h)
			}
			_, err = db.ExecContext(ctx, "INSERT INTO fruit VALUES ('pear')")
			must(t, err)
			names, err := standby.QueryString("SELECT string_agg(name, ' ' ORDER BY name) FROM fruit")
			must(t, err)
			if names != "apple pear" {
				t.Errorf("the new primary has %s", names)
			}
		})
	}
}
