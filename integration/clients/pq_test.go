package clients

import (
	"database/sql"
	"errors"
	"slices"
	"testing"

	"github.com/lib/pq"
)

// What only lib/pq has: COPY by a prepared statement, arrays, and its own error.
func TestPqCopyAndArrays(t *testing.T) {
	for _, keys := range []string{"base_driver=pq&pool_size=4", "base_driver=pq"} {
		t.Run(keys, func(t *testing.T) {
			s := start(t, keys)
			db, err := sql.Open("managedpg", s.dsn)
			s.must(err)
			defer db.Close()
			_, err = db.Exec("CREATE TABLE fruit (name text PRIMARY KEY, colours text[])")
			s.must(err)

			load := func(names ...string) error {
				tx, err := db.Begin()
				if err != nil {
					return err
				}
				defer tx.Rollback()
				stmt, err := tx.Prepare("COPY fruit (name, colours) FROM STDIN")
				if err != nil {
					return err
				}
				for _, name := range names {
					if _, err := stmt.Exec(name, pq.Array([]string{"green", `"red"`})); err != nil {
						return err
					}
				}
				if _, err := stmt.Exec(); err != nil {
					return err
				}
				if err := stmt.Close(); err != nil {
					return err
				}
				return tx.Commit()
			}
			s.must(load("apple", "pear"))
			var said *pq.Error
			if err := load("fig", "apple"); !errors.As(err, &said) || said.Code.Name() != "unique_violation" {
				t.Errorf("a second apple: %v", err)
			}

			s.failOver()

			s.must(load("plum"))
			var names, colours []string
			s.must(db.QueryRow("SELECT array_agg(name ORDER BY name) FROM fruit WHERE name = ANY($1)",
				pq.Array([]string{"apple", "fig", "plum"})).Scan(pq.Array(&names)))
			s.must(db.QueryRow("SELECT colours FROM fruit WHERE name = 'plum'").Scan(pq.Array(&colours)))
			if !slices.Equal(names, []string{"apple", "plum"}) || !slices.Equal(colours, []string{"green", `"red"`}) {
				t.Errorf("found %q, plum is %q", names, colours)
			}
			s.check()
		})
	}
}
