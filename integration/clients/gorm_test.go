package clients

import (
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/managedpg/managedpg/internal/pgtest"
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
			if strings.Contains(s.dsn, "base_driver=pq") {
				return postgres.Config{Conn: db, DriverName: "postgres"}
			}
			return postgres.Config{Conn: db, DriverName: "pgx"}
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

// part is a table as the program's first version has it, partChanged and partChangedAgain as later ones do.
type part struct {
	ID    uint
	Count int32
}

type partChanged struct {
	ID    uint
	Count int64
	Name  string
}

type partChangedAgain struct {
	ID    uint
	Count string
	Name  string
	Note  string
}

func (part) TableName() string             { return "parts" }
func (partChanged) TableName() string      { return "parts" }
func (partChangedAgain) TableName() string { return "parts" }

// GORM's migrator reads a table of which it alters the columns. By the names "" and "pgx" it does so without a prepared statement,
// as docs/upgrading.md has it; by another name over pgx it falls over the statement that it prepared before.
func TestGORMMigratesAnAlteredTable(t *testing.T) {
	for _, c := range []struct {
		base, driverName string
		fails            bool
	}{
		{"pgx", "pgx", false},
		{"pgx", "", false},
		{"pgx", "managedpg", true},
		{"pq", "postgres", false},
		{"pq", "managedpg", false},
	} {
		for _, pool := range []string{"", "&pool_size=1"} {
			t.Run(c.base+",DriverName="+c.driverName+pool, func(t *testing.T) {
				pool, err := sql.Open("managedpg", pgtest.Database(t)+"&base_driver="+c.base+pool)
				if err != nil {
					t.Fatal(err)
				}
				defer pool.Close()
				migrate := func() error {
					db, err := gorm.Open(postgres.New(postgres.Config{Conn: pool, DriverName: c.driverName}), &gorm.Config{Logger: logger.Discard})
					if err != nil {
						return err
					}
					if err := db.AutoMigrate(&part{}); err != nil {
						return err
					}
					if err := db.Create(&part{Count: 7}).Error; err != nil {
						return err
					}
					for range 2 {
						for _, version := range []any{&partChanged{}, &partChangedAgain{}} {
							if err := db.AutoMigrate(version); err != nil {
								return err
							}
						}
						var all []partChangedAgain
						if err := db.Find(&all).Error; err != nil {
							return err
						}
						if len(all) != 1 || all[0].Count != "7" {
							t.Errorf("found %+v", all)
						}
					}
					return nil
				}
				err = migrate()
				var server *pgconn.PgError
				if failed := errors.As(err, &server) && server.Code == "0A000"; failed != c.fails || !failed && err != nil {
					t.Errorf("got %v, want an error: %v", err, c.fails)
				}
			})
		}
	}
}
