package clients

import (
	"context"
	"database/sql"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// goose with its lock in the server's session, and with a migration outside a transaction.
func TestGoose(t *testing.T) {
	first := fstest.MapFS{
		"001_fruit.sql": {Data: []byte("-- +goose Up\nCREATE TABLE fruit (name text);\nINSERT INTO fruit VALUES ('apple');\n" +
			"-- +goose Down\nDROP TABLE fruit;\n")},
		"002_index.sql": {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY fruit_name ON fruit (name);\n" +
			"-- +goose Down\nDROP INDEX CONCURRENTLY fruit_name;\n")},
	}
	all := fstest.MapFS{
		"001_fruit.sql": first["001_fruit.sql"],
		"002_index.sql": first["002_index.sql"],
		"003_more.sql": {Data: []byte("-- +goose Up\n-- +goose StatementBegin\nDO $$ BEGIN INSERT INTO fruit VALUES ('pear'); END $$;\n" +
			"-- +goose StatementEnd\n-- +goose Down\nDELETE FROM fruit WHERE name = 'pear';\n")},
	}
	eachBase(t, func(s *servers) {
		ctx := context.Background()
		db, err := sql.Open("managedpg", s.dsn)
		s.must(err)
		defer db.Close()
		migrations := func(files fstest.MapFS) *goose.Provider {
			locker, err := lock.NewPostgresSessionLocker()
			s.must(err)
			p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
			s.must(err)
			return p
		}
		_, err = migrations(first).Up(ctx)
		s.must(err)

		s.failOver()

		p := migrations(all)
		done, err := p.Up(ctx)
		s.must(err)
		if len(done) != 1 || done[0].Source.Version != 3 {
			t.Errorf("after the failover it ran %v", done)
		}
		var fruits int
		s.must(db.QueryRowContext(ctx, "SELECT count(*) FROM fruit").Scan(&fruits))
		if fruits != 2 {
			t.Errorf("%d fruits", fruits)
		}
		_, err = p.DownTo(ctx, 0)
		s.must(err)
		if v, err := p.GetDBVersion(ctx); v != 0 || err != nil {
			t.Errorf("at version %d, %v", v, err)
		}
		s.check()
	})
}
