package clients

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/ngrok/sqlmw"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Unwrap and PgxConn find the base driver's connection through what tracing puts around managedpg's, and around that of a connector
// of the program's own.
func TestUnwrapThroughWrappers(t *testing.T) {
	sql.Register("sqlmw around managedpg", sqlmw.Driver(driverOf(t, "managedpg"), sqlmw.NullInterceptor{}))
	sql.Register("sqlmw around otelsql around managedpg",
		sqlmw.Driver(otelsql.WrapDriver(driverOf(t, "managedpg")), sqlmw.NullInterceptor{}))
	for name, open := range map[string]func(t *testing.T, dsn string) (*sql.DB, error){
		"otelsql": func(_ *testing.T, dsn string) (*sql.DB, error) { return otelsql.Open("managedpg", dsn) },
		"sqlmw":   func(_ *testing.T, dsn string) (*sql.DB, error) { return sql.Open("sqlmw around managedpg", dsn) },
		"sqlmw, otelsql": func(_ *testing.T, dsn string) (*sql.DB, error) {
			return sql.Open("sqlmw around otelsql around managedpg", dsn)
		},
		"otelsql.OpenDB":  openTraced,
		"otelsql, inside": openAroundTraced,
	} {
		for _, base := range []string{"pgx", "pq"} {
			for _, keys := range []string{"", "&pool_size=2"} {
				if name == "otelsql, inside" && (base == "pq" || keys != "") {
					continue // a connector of the program's own is no base driver of managedpg's
				}
				t.Run(name+"/"+base+keys, func(t *testing.T) {
					dsn := pgtest.Database(t)
					if name != "otelsql, inside" {
						dsn += "&base_driver=" + base + keys
					}
					db, err := open(t, dsn)
					if err != nil {
						t.Fatal(err)
					}
					defer closePools(t) // sqlmw doesn't tell the pool that the sql.DB is closed
					defer db.Close()
					c, err := db.Conn(context.Background())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					want := map[string]string{"pgx": "*stdlib.Conn", "pq": "*pq.conn"}[base]
					if err := c.Raw(func(driverConn any) error {
						if got := fmt.Sprintf("%T", managedpg.Unwrap(driverConn)); got != want {
							return fmt.Errorf("Unwrap gives a %s", got)
						}
						return nil
					}); err != nil {
						t.Error(err)
					}
					if _, err := c.ExecContext(context.Background(), "SELECT $1::int", 1); err != nil {
						t.Errorf("afterwards: %v", err)
					}
					ping := func(c *pgx.Conn) error { return c.Ping(context.Background()) }
					if err := managedpg.PgxConn(context.Background(), db, ping); (err == nil) != (base == "pgx") {
						t.Errorf("PgxConn: %v", err)
					}
				})
			}
		}
	}
}

// The bare drivers' connections come back as they are, wrapped too where there is nothing to see through by.
func TestUnwrapOfBareDrivers(t *testing.T) {
	for _, base := range []string{"pgx", "postgres"} {
		db, err := sql.Open(base, pgtest.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		c, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Raw(func(driverConn any) error {
			if got := managedpg.Unwrap(driverConn); got != driverConn {
				t.Errorf("Unwrap makes a %T of a %T", got, driverConn)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

func closePools(t *testing.T) {
	for _, p := range managedpg.Pools() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

func driverOf(t *testing.T, name string) driver.Driver {
	db, err := sql.Open(name, "postgres://localhost/x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db.Driver()
}

// openTraced keeps the pool's handle, as the documentation shows it.
func openTraced(t *testing.T, dsn string) (*sql.DB, error) {
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	plain, err := managedpg.OpenDB(cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = plain.Close() })
	pool, ok := managedpg.PoolOf(plain)
	if !ok {
		return nil, fmt.Errorf("no pool")
	}
	return otelsql.OpenDB(pool), nil
}

func openAroundTraced(_ *testing.T, dsn string) (*sql.DB, error) {
	own, err := otelsql.WrapDriver(stdlib.GetDefaultDriver()).(driver.DriverContext).OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	return managedpg.OpenDB(&managedpg.Config{PoolSize: 2, Endpoints: []driver.Connector{own}})
}
