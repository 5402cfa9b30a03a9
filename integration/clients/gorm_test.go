package clients

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

type author struct {
	ID    uint
	Name  string `gorm:"uniqueIndex"`
	Books []book
}

type book struct {
	ID       uint
	Title    string
	AuthorID uint
}

// GORM by the driver's name, with statements that it prepares, and on a sql.DB of the program's own.
func TestGORM(t *testing.T) {
	byName := func(s *servers) postgres.Config { return postgres.Config{DriverName: "managedpg", DSN: s.dsn} }
	for how, config := range map[string]func(*servers) postgres.Config{
		"DriverName":  byName,
		"PrepareStmt": byName,
		"Conn": func(s *servers) postgres.Config {
			db, err := sql.Open("managedpg", s.dsn)
			s.must(err)
			c := postgres.Config{Conn: db}
			if strings.Contains(s.dsn, "base_driver=pq") {
				c.DriverName = "managedpg" // without a name GORM takes db for pgx's and uses an option of pgx's own
			}
			return c
		},
	} {
		t.Run(how, func(t *testing.T) {
			eachBase(t, func(s *servers) {
				db, err := gorm.Open(postgres.New(config(s)), &gorm.Config{
					Logger: logger.Discard, TranslateError: true, PrepareStmt: how == "PrepareStmt",
				})
				s.must(err)
				pool, err := db.DB()
				s.must(err)
				defer pool.Close()
				for range 2 { // the second time it looks at the tables that are there
					s.must(db.AutoMigrate(&author{}, &book{}))
				}

				s.must(db.Create(&author{Name: "Ann", Books: []book{{Title: "A"}, {Title: "B"}}}).Error)
				if err := db.Create(&author{Name: "Ann"}).Error; !errors.Is(err, gorm.ErrDuplicatedKey) {
					t.Errorf("a second Ann: %v", err)
				}
				changedMind := errors.New("changed my mind")
				err = db.Transaction(func(tx *gorm.DB) error {
					s.must(tx.Create(&author{Name: "Eve"}).Error)
					return changedMind
				})
				if !errors.Is(err, changedMind) {
					t.Error(err)
				}

				s.failOver()

				s.must(db.Transaction(func(tx *gorm.DB) error { return tx.Create(&author{Name: "Zoe"}).Error }))
				var all []author
				s.must(db.Preload("Books").Order("name").Find(&all).Error)
				if len(all) != 2 || len(all[0].Books) != 2 || all[1].Name != "Zoe" {
					t.Errorf("found %+v", all)
				}
				s.must(db.Migrator().DropTable(&book{}, &author{}))
				s.check()
			})
		})
	}
}
