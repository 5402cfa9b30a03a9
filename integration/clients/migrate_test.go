package clients

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/fstest"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database/postgres"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/managedpg/managedpg"
)

func TestGolangMigrate(t *testing.T) {
	files := fstest.MapFS{
		"1_fruit.up.sql":   {Data: []byte("CREATE TABLE fruit (name text); INSERT INTO fruit VALUES ('apple');")},
		"1_fruit.down.sql": {Data: []byte("DROP TABLE fruit;")},
		"2_more.up.sql":    {Data: []byte("INSERT INTO fruit VALUES ('pear'); INSERT INTO fruit VALUES ('fig');")},
		"2_more.down.sql":  {Data: []byte("DELETE FROM fruit WHERE name <> 'apple';")},
		"3_bad.up.sql":     {Data: []byte("INSERT INTO fruit VALUES ('kiwi'); INSERT INTO vegetable VALUES ('leek');")},
	}
	eachBase(t, func(s *servers) {
		db, err := sql.Open("managedpg", s.dsn)
		s.must(err)
		defer db.Close()
		// A Migrate holds a connection until it is closed. WithInstance would close db with it.
		migrations := func(run func(*migrate.Migrate) error) error {
			ctx := managedpg.LongCheckout(context.Background())
			conn, err := db.Conn(ctx)
			s.must(err)
			target, err := postgres.WithConnection(ctx, conn, &postgres.Config{})
			s.must(err)
			source, err := iofs.New(files, ".")
			s.must(err)
			m, err := migrate.NewWithInstance("iofs", source, "managedpg", target)
			s.must(err)
			err = run(m)
			sourceErr, targetErr := m.Close()
			return errors.Join(err, sourceErr, targetErr)
		}
		s.must(migrations(func(m *migrate.Migrate) error { return m.Migrate(1) }))

		s.failOver()

		s.must(migrations(func(m *migrate.Migrate) error { return m.Steps(1) }))
		var fruits int
		s.must(db.QueryRow("SELECT count(*) FROM fruit").Scan(&fruits))
		if fruits != 3 {
			t.Errorf("%d fruits", fruits)
		}
		if err := migrations((*migrate.Migrate).Up); err == nil {
			t.Error("a migration with an error in it succeeded")
		}
		s.must(db.QueryRow("SELECT count(*) FROM fruit").Scan(&fruits))
		if fruits != 3 {
			t.Errorf("%d fruits after a migration that failed", fruits)
		}
		s.must(migrations(func(m *migrate.Migrate) error { return errors.Join(m.Force(2), m.Down()) }))
		s.check()
	})
}
