package clients

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/integration/clients/queries"
)

// sqlc's code, with statements sent as they are and with prepared ones.
func TestSqlc(t *testing.T) {
	for how, make := range map[string]func(context.Context, *sql.DB) (*queries.Queries, error){
		"plain":    func(_ context.Context, db *sql.DB) (*queries.Queries, error) { return queries.New(db), nil },
		"prepared": func(ctx context.Context, db *sql.DB) (*queries.Queries, error) { return queries.Prepare(ctx, db) },
	} {
		t.Run(how, func(t *testing.T) {
			eachBase(t, func(s *servers) {
				ctx := context.Background()
				db, err := sql.Open("managedpg", s.dsn)
				s.must(err)
				defer db.Close()
				_, err = db.ExecContext(ctx, `CREATE TABLE account (id bigserial PRIMARY KEY, owner text NOT NULL,
					balance bigint NOT NULL, note text, created_at timestamptz NOT NULL DEFAULT now())`)
				s.must(err)
				q, err := make(ctx, db)
				s.must(err)
				defer q.Close()

				ann, err := q.CreateAccount(ctx, queries.CreateAccountParams{Owner: "Ann", Balance: 100})
				s.must(err)
				bob, err := q.CreateAccount(ctx, queries.CreateAccountParams{Owner: "Bob", Note: sql.NullString{String: "new", Valid: true}})
				s.must(err)
				transfer := func(from, to, amount int64) error {
					return managedpg.InTx(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
						q := q.WithTx(tx)
						for id, amount := range map[int64]int64{from: -amount, to: amount} {
							n, err := q.AddToBalance(ctx, queries.AddToBalanceParams{ID: id, Amount: amount})
							if err != nil {
								return err
							}
							if n != 1 {
								return sql.ErrNoRows
							}
						}
						return nil
					})
				}
				s.must(transfer(ann.ID, bob.ID, 30))
				if err := transfer(ann.ID, -1, 30); !errors.Is(err, sql.ErrNoRows) {
					t.Errorf("a transfer to nobody: %v", err)
				}

				s.failOver()

				s.must(transfer(ann.ID, bob.ID, 30))
				if got, err := q.GetAccount(ctx, bob.ID); err != nil || got.Balance != 60 || got.Note.String != "new" || !got.CreatedAt.Equal(bob.CreatedAt) {
					t.Errorf("Bob has %+v, %v", got, err)
				}
				if all, err := q.ListAccounts(ctx); err != nil || len(all) != 2 || all[0].Balance != 40 || all[0].Note.Valid {
					t.Errorf("all are %+v, %v", all, err)
				}
				s.check()
			})
		})
	}
}
