package clients

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strconv"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/jackc/pgx/v5"
	"github.com/jmoiron/sqlx"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/integration/clients/ent"
)

// place is a row of the view users, whose only row says on which kind of server it was read, so that each client finds that out with
// the very calls that its users make.
type place struct {
	bun.BaseModel `bun:"table:users" gorm:"-" db:"-"`
	ID            int64 `bun:",pk,autoincrement"`
	Name          string
}

func (place) TableName() string { return "users" }

// What is written to users lands in a table.
const (
	onPrimary, onStandby = "primary", "standby"

	placesView = `CREATE VIEW users AS SELECT 1::bigint AS id, CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS name`
	placesLog  = `CREATE TABLE written (name text)`
	placesFunc = `CREATE FUNCTION place() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO written VALUES (NEW.name); NEW.id := 2; RETURN NEW; END $$`
	placesTrigger = `CREATE TRIGGER place INSTEAD OF INSERT ON users FOR EACH ROW EXECUTE FUNCTION place()`
)

// library is what a client library's user does with one sql.DB, or with what the library makes of it.
type library struct {
	read  func(context.Context) (string, error)            // says where it ran
	write func(context.Context) error                      // adds a row
	tx    func(ctx context.Context) (string, error)        // reads in a transaction that is READ ONLY
	more  map[string]func(context.Context) (string, error) // reads in other ways
}

var libraries = map[string]func(s *servers, db *sql.DB) library{
	"database/sql": func(s *servers, db *sql.DB) library {
		const query = "SELECT name FROM users"
		scan := func(r *sql.Row) (name string, err error) {
			err = r.Scan(&name)
			return name, err
		}
		onConn := func(ctx context.Context, f func(*sql.Conn) (string, error)) (string, error) {
			c, err := db.Conn(ctx)
			if err != nil {
				return "", err
			}
			defer c.Close()
			return f(c)
		}
		// What is said on the sql.Conn itself isn't marked: where it leads was decided when it was taken.
		plain := context.Background()
		lib := library{
			read: func(ctx context.Context) (string, error) { return scan(db.QueryRowContext(ctx, query)) },
			write: func(ctx context.Context) error {
				_, err := db.ExecContext(ctx, "INSERT INTO users (name) VALUES ($1)", "x")
				return err
			},
			tx: func(ctx context.Context) (string, error) {
				tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
				if err != nil {
					return "", err
				}
				defer tx.Rollback()
				return scan(tx.QueryRowContext(ctx, query))
			},
			more: map[string]func(context.Context) (string, error){
				"prepared": func(ctx context.Context) (string, error) {
					st, err := db.PrepareContext(ctx, query)
					if err != nil {
						return "", err
					}
					defer st.Close()
					return scan(st.QueryRowContext(ctx))
				},
				"sql.Conn": func(ctx context.Context) (string, error) {
					return onConn(ctx, func(c *sql.Conn) (string, error) { return scan(c.QueryRowContext(plain, query)) })
				},
				"Raw": func(ctx context.Context) (string, error) {
					return onConn(ctx, func(c *sql.Conn) (name string, err error) {
						err = c.Raw(func(driverConn any) error {
							rows, err := driverConn.(driver.QueryerContext).QueryContext(plain, query, nil)
							if err != nil {
								return err
							}
							defer rows.Close()
							row := make([]driver.Value, 1)
							err = rows.Next(row)
							switch v := row[0].(type) {
							case string:
								name = v
							case []byte:
								name = string(v)
							}
							return err
						})
						return name, err
					})
				},
			},
		}
		if s.base == "pgx" {
			lib.more["PgxConn"] = func(ctx context.Context) (name string, err error) {
				err = managedpg.PgxConn(ctx, db, func(c *pgx.Conn) error { return c.QueryRow(plain, query).Scan(&name) })
				return name, err
			}
		}
		return lib
	},
	"sqlx": func(_ *servers, pool *sql.DB) library {
		db := sqlx.NewDb(pool, "managedpg")
		return library{
			read: func(ctx context.Context) (string, error) {
				var p place
				err := db.GetContext(ctx, &p, "SELECT id, name FROM users")
				return p.Name, err
			},
			write: func(ctx context.Context) error {
				_, err := db.NamedExecContext(ctx, "INSERT INTO users (name) VALUES (:name)", place{Name: "x"})
				return err
			},
			tx: func(ctx context.Context) (name string, err error) {
				tx, err := db.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
				if err != nil {
					return "", err
				}
				defer tx.Rollback()
				err = tx.GetContext(ctx, &name, "SELECT name FROM users")
				return name, err
			},
		}
	},
	"GORM":             func(s *servers, db *sql.DB) library { return withGORM(s, db, false) },
	"GORM,PrepareStmt": func(s *servers, db *sql.DB) library { return withGORM(s, db, true) },
	"bun": func(_ *servers, pool *sql.DB) library {
		db := bun.NewDB(pool, pgdialect.New())
		read := func(ctx context.Context, from bun.IDB) (string, error) {
			var p place
			err := from.NewSelect().Model(&p).Scan(ctx)
			return p.Name, err
		}
		return library{
			read: func(ctx context.Context) (string, error) { return read(ctx, db) },
			write: func(ctx context.Context) error {
				_, err := db.NewInsert().Model(&place{Name: "x"}).Exec(ctx)
				return err
			},
			tx: func(ctx context.Context) (name string, err error) {
				err = db.RunInTx(ctx, &sql.TxOptions{ReadOnly: true}, func(ctx context.Context, tx bun.Tx) error {
					name, err = read(ctx, tx)
					return err
				})
				return name, err
			},
		}
	},
	"ent": func(_ *servers, db *sql.DB) library {
		client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, db)))
		read := func(ctx context.Context, users *ent.UserClient) (string, error) {
			u, err := users.Query().Only(ctx)
			if err != nil {
				return "", err
			}
			return u.Name, nil
		}
		return library{
			read:  func(ctx context.Context) (string, error) { return read(ctx, client.User) },
			write: func(ctx context.Context) error { return client.User.Create().SetName("x").Exec(ctx) },
			tx: func(ctx context.Context) (string, error) {
				tx, err := client.BeginTx(ctx, &entsql.TxOptions{ReadOnly: true})
				if err != nil {
					return "", err
				}
				defer tx.Rollback()
				return read(ctx, tx.User)
			},
		}
	},
}

func withGORM(s *servers, pool *sql.DB, prepare bool) library {
	name := "pgx"
	if s.base == "pq" {
		name = "postgres"
	}
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool, DriverName: name}), &gorm.Config{Logger: logger.Discard, PrepareStmt: prepare})
	s.must(err)
	read := func(from *gorm.DB) (string, error) {
		var p place
		err := from.First(&p).Error
		return p.Name, err
	}
	return library{
		read:  func(ctx context.Context) (string, error) { return read(db.WithContext(ctx)) },
		write: func(ctx context.Context) error { return db.WithContext(ctx).Create(&place{Name: "x"}).Error },
		tx: func(ctx context.Context) (name string, err error) {
			err = db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
				name, err = read(tx)
				return err
			}, &sql.TxOptions{ReadOnly: true})
			return name, err
		},
	}
}

// With standby_reads each library's reads go to the standby by the context alone, what isn't marked goes to the primary, and a write
// with a context that is marked fails as PostgreSQL says it.
func TestReadsByContext(t *testing.T) {
	for _, base := range []string{"pgx", "pq"} {
		t.Run(base, func(t *testing.T) {
			s := start(t, "base_driver="+base+"&pool_size=4&standby_reads=true&health_check_interval=100ms")
			s.base = base
			s.must(s.primary.Exec(placesView, placesLog, placesFunc, placesTrigger))
			eventually(t, "the view is on the standby", func() bool {
				n, err := s.standby.QueryString("SELECT count(*)::text FROM pg_trigger WHERE tgname = 'place'")
				return err == nil && n == "1"
			})
			for name, use := range libraries {
				t.Run(name, func(t *testing.T) {
					s := &servers{T: t, primary: s.primary, standby: s.standby, dsn: s.dsn, base: base}
					db, err := sql.Open("managedpg", s.dsn)
					s.must(err)
					defer db.Close()
					s.reads(use(s, db))
				})
			}
		})
	}
}

func (s *servers) reads(lib library) {
	s.Helper()
	ctx := context.Background()
	marked := managedpg.ReadOnly(ctx)
	want := func(what, want string, read func(context.Context) (string, error), ctx context.Context) {
		s.Helper()
		if got, err := read(ctx); err != nil || got != want {
			s.Errorf("%s ran on the %q, want %q; %v", what, got, want, err)
		}
	}
	eventually(s.T, "reads on the standby", func() bool {
		got, err := lib.read(marked)
		return err == nil && got == onStandby
	})
	for range 3 { // connections that were kept change their pool
		want("a read", onPrimary, lib.read, ctx)
		want("a marked read", onStandby, lib.read, marked)
		want("a READ ONLY transaction", onStandby, lib.tx, ctx)
		want("a marked READ ONLY transaction", onStandby, lib.tx, marked)
		for how, read := range lib.more {
			want(how, onPrimary, read, ctx)
			want(how+", marked", onStandby, read, marked)
		}
	}
	before := s.written()
	for range 3 {
		s.must(lib.write(ctx))
		var said interface{ SQLState() string }
		if err := lib.write(marked); !errors.As(err, &said) || said.SQLState() != "25006" {
			s.Errorf("a marked write: %v, want 25006", err)
		}
	}
	if n := s.written() - before; n != 3 {
		s.Errorf("%d rows written, want 3", n)
	}
}

// written is how many rows the libraries have written.
func (s *servers) written() int {
	s.Helper()
	text, err := s.primary.QueryString("SELECT count(*)::text FROM written")
	s.must(err)
	n, err := strconv.Atoi(text)
	s.must(err)
	return n
}
