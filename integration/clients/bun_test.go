package clients

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
)

func TestBun(t *testing.T) {
	type song struct {
		ID      int64 `bun:",pk,autoincrement"`
		AlbumID int64
		Title   string
	}
	type album struct {
		ID    int64 `bun:",pk,autoincrement"`
		Name  string
		Tags  []string          `bun:",array"`
		Notes map[string]string `bun:"type:jsonb"`
		Songs []*song           `bun:"rel:has-many,join:id=album_id"`
	}
	eachBase(t, func(s *servers) {
		ctx := context.Background()
		pool, err := sql.Open("managedpg", s.dsn)
		s.must(err)
		db := bun.NewDB(pool, pgdialect.New())
		defer db.Close()
		for _, model := range []any{(*album)(nil), (*song)(nil)} {
			_, err := db.NewCreateTable().Model(model).Exec(ctx)
			s.must(err)
		}

		add := func(a *album, titles ...string) error {
			return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
				if _, err := tx.NewInsert().Model(a).Exec(ctx); err != nil { // RETURNING fills in its id
					return err
				}
				for _, title := range titles {
					if title == "" {
						return errors.New("a song without a title")
					}
					if _, err := tx.NewInsert().Model(&song{AlbumID: a.ID, Title: title}).Exec(ctx); err != nil {
						return err
					}
				}
				return nil
			})
		}
		s.must(add(&album{Name: "First", Tags: []string{"a", `it's "b"`}, Notes: map[string]string{"by": "Ann"}}, "One", "Two"))
		if err := add(&album{Name: "Second"}, "Three", ""); err == nil {
			t.Error("an album with a nameless song was accepted")
		}

		s.failOver()

		s.must(add(&album{Name: "Third"}, "Four"))
		var all []album
		s.must(db.NewSelect().Model(&all).Relation("Songs").Order("id").Scan(ctx))
		if len(all) != 2 || len(all[0].Songs) != 2 || len(all[0].Tags) != 2 || all[0].Tags[1] != `it's "b"` ||
			all[0].Notes["by"] != "Ann" || all[1].Songs[0].Title != "Four" {
			t.Errorf("found %+v", all)
		}
		s.check()
	})
}
