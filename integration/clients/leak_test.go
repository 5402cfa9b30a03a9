package clients

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"

	"github.com/managedpg/managedpg"
	_ "github.com/managedpg/managedpg/driver/sqlxbind"
	"github.com/managedpg/managedpg/integration/clients/ent"
	"github.com/managedpg/managedpg/internal/pgtest"
	"github.com/managedpg/managedpg/leak"
)

// nextLine is the place of the line below the one that calls it, as a report names it.
func nextLine() string {
	_, file, line, _ := runtime.Caller(1)
	return file + ":" + strconv.Itoa(line+1) + " "
}

// The ways to leak through a library. Each says where it took the connection, and how to give it back.
var waysToLeak = []struct {
	name string
	do   func(ctx context.Context, db *sql.DB) (at string, free func() error, err error)
}{
	{"sqlx: Queryx", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		x := sqlx.NewDb(db, "managedpg")
		at := nextLine()
		rows, err := x.QueryxContext(ctx, "SELECT name FROM users")
		return at, func() error { return rows.Close() }, err
	}},
	{"sqlx: NamedQuery", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		x := sqlx.NewDb(db, "managedpg")
		at := nextLine()
		rows, err := x.NamedQueryContext(ctx, "SELECT name FROM users WHERE name <> :name", map[string]any{"name": "nobody"})
		return at, func() error { return rows.Close() }, err
	}},
	{"sqlx: QueryRowx without Scan", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		x := sqlx.NewDb(db, "managedpg")
		at := nextLine()
		row := x.QueryRowxContext(ctx, "SELECT name FROM users")
		var name string
		return at, func() error { return row.Scan(&name) }, row.Err()
	}},
	{"sqlx: Beginx", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		x := sqlx.NewDb(db, "managedpg")
		at := nextLine()
		tx, err := x.BeginTxx(ctx, nil)
		return at, func() error { return tx.Rollback() }, err
	}},
	{"sqlx: Connx", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		x := sqlx.NewDb(db, "managedpg")
		at := nextLine()
		c, err := x.Connx(ctx)
		return at, func() error { return c.Close() }, err
	}},
	{"ent: Tx", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, db)))
		at := nextLine()
		tx, err := client.Tx(ctx)
		if err != nil {
			return "", nil, err
		}
		_, err = tx.User.Query().WithOrders().All(ctx)
		return at, func() error { return tx.Rollback() }, err
	}},
	{"ent: Rows", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		drv, rows := entsql.OpenDB(dialect.Postgres, db), new(entsql.Rows)
		at := nextLine()
		err := drv.Query(ctx, "SELECT name FROM users", []any{}, rows)
		return at, func() error { return rows.Close() }, err
	}},
	{"GORM: Rows", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		g, err := gorm.Open(postgres.New(postgres.Config{Conn: db, DriverName: "managedpg"}), &gorm.Config{DisableAutomaticPing: true})
		if err != nil {
			return "", nil, err
		}
		at := nextLine()
		rows, err := g.WithContext(ctx).Table("users").Where("name <> ?", "nobody").Rows()
		return at, func() error { return rows.Close() }, err
	}},
	{"GORM: Begin", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		g, err := gorm.Open(postgres.New(postgres.Config{Conn: db, DriverName: "managedpg"}), &gorm.Config{DisableAutomaticPing: true})
		if err != nil {
			return "", nil, err
		}
		at := nextLine()
		tx := g.WithContext(ctx).Begin()
		return at, func() error { return tx.Rollback().Error }, tx.Error
	}},
	{"bun: Rows", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		b := bun.NewDB(db, pgdialect.New())
		at := nextLine()
		rows, err := b.NewSelect().Table("users").Column("name").Rows(ctx)
		return at, func() error { return rows.Close() }, err
	}},
	{"bun: BeginTx", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		b := bun.NewDB(db, pgdialect.New())
		at := nextLine()
		tx, err := b.BeginTx(ctx, nil)
		return at, func() error { return tx.Rollback() }, err
	}},
	{"ent: blocked in an interceptor", func(ctx context.Context, db *sql.DB) (string, func() error, error) {
		client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, db)))
		held, release, result := make(chan struct{}), make(chan struct{}), make(chan error)
		client.User.Intercept(ent.InterceptFunc(func(next ent.Querier) ent.Querier {
			return ent.QuerierFunc(func(ctx context.Context, q ent.Query) (ent.Value, error) {
				close(held)
				<-release
				return next.Query(ctx, q)
			})
		}))
		var at string
		go func() {
			at = nextLine()
			tx, err := client.Tx(ctx)
			if err == nil {
				_, err = tx.User.Query().All(ctx)
				err = errors.Join(err, tx.Rollback())
			}
			result <- err
		}()
		<-held
		return at, func() error {
			close(release)
			return <-result
		}, nil
	}},
}

// A leak through a library names the line that called the library.
func TestLeakThroughALibraryNamesTheLine(t *testing.T) {
	for _, keys := range []string{"base_driver=pgx", "base_driver=pgx&pool_size=20", "base_driver=pq", "base_driver=pq&pool_size=20"} {
		t.Run(keys, func(t *testing.T) {
			ctx, dsn := context.Background(), pgtest.Database(t)
			makeUsers(t, dsn)
			cfg, err := managedpg.ParseDSN(dsn + "&leak_threshold=0.5&" + keys)
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			got := map[string]int{} // reports by place
			cfg.OnLeak = func(r leak.Report) {
				mu.Lock()
				defer mu.Unlock()
				got[r.Caller[:strings.Index(r.Caller, " ")+1]]++
			}
			db, err := managedpg.OpenDB(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			pool, _ := managedpg.PoolOf(db)

			want := map[string]string{} // a way by its place
			var free []func() error
			for _, way := range waysToLeak {
				at, f, err := way.do(ctx, db)
				if err != nil {
					t.Fatalf("%s: %v", way.name, err)
				}
				want[at] = way.name
				free = append(free, f)
			}
			eventually(t, "all leaks reported", func() bool {
				mu.Lock()
				defer mu.Unlock()
				n := 0
				for _, times := range got {
					n += times
				}
				return n == len(want)
			})
			for at, way := range want {
				if got[at] != 1 {
					t.Errorf("%s: reported %d times at %s; reported were %v", way, got[at], at, got)
				}
			}
			for _, f := range free {
				if err := f(); err != nil {
					t.Error(err)
				}
			}
			if n := len(pool.Leaks()); n != 0 || pool.Stats().CheckedOut != 0 {
				t.Errorf("%d leaks after all came back: %v", n, pool.Leaks())
			}
		})
	}
}

func makeUsers(t *testing.T, dsn string) {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	client, ctx := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, db))), context.Background()
	if err := client.Schema.Create(ctx); err != nil {
		t.Fatal(err)
	}
	ann := client.User.Create().SetName("Ann").SaveX(ctx)
	client.Order.Create().SetBuyer(ann).SetCents(100).SaveX(ctx)
}
