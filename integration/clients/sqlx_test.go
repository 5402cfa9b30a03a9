package clients

import (
	"slices"
	"testing"

	"github.com/jmoiron/sqlx"

	_ "github.com/managedpg/managedpg/driver/sqlxbind"
)

func TestSqlx(t *testing.T) {
	eachBase(t, func(s *servers) {
		type person struct {
			ID    int
			Name  string
			Email *string
		}
		db, err := sqlx.Open("managedpg", s.dsn)
		s.must(err)
		defer db.Close()
		db.MustExec(`CREATE TABLE person (id serial PRIMARY KEY, name text NOT NULL, email text)`)

		mail := "ann@example.org"
		_, err = db.NamedExec(`INSERT INTO person (name, email) VALUES (:name, :email)`, []person{{Name: "Ann", Email: &mail}, {Name: "Bob"}})
		s.must(err)
		tx := db.MustBegin()
		_, err = tx.NamedExec(`INSERT INTO person (name) VALUES (:name)`, map[string]any{"name": "Eve"})
		s.must(err)
		s.must(tx.Rollback())

		names := func(names ...string) (found []string) {
			query, args, err := sqlx.In(`SELECT name FROM person WHERE name IN (?) ORDER BY id`, names)
			s.must(err)
			s.must(db.Select(&found, db.Rebind(query), args...))
			return found
		}
		if got := names("Ann", "Bob", "Eve"); !slices.Equal(got, []string{"Ann", "Bob"}) {
			t.Error("found", got)
		}

		s.failOver()

		_, err = db.NamedExec(`INSERT INTO person (name) VALUES (:name)`, person{Name: "Zoe"})
		s.must(err)
		rows, err := db.Queryx(`SELECT * FROM person ORDER BY id`)
		s.must(err)
		defer rows.Close()
		var all []person
		for rows.Next() {
			var p person
			s.must(rows.StructScan(&p))
			all = append(all, p)
		}
		s.must(rows.Err())
		if len(all) != 3 || all[0].Email == nil || *all[0].Email != mail || all[1].Email != nil || all[2].Name != "Zoe" {
			t.Errorf("%+v", all)
		}
		s.check()
	})
}
