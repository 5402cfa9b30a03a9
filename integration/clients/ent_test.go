package clients

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/managedpg/managedpg/integration/clients/ent"
	"github.com/managedpg/managedpg/integration/clients/ent/order"
	"github.com/managedpg/managedpg/integration/clients/ent/user"
)

func TestEnt(t *testing.T) {
	eachBase(t, func(s *servers) {
		ctx := context.Background()
		db, err := sql.Open("managedpg", s.dsn)
		s.must(err)
		client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, db)))
		defer client.Close()
		s.must(client.Schema.Create(ctx))

		// buys makes a customer with orders, in one transaction.
		buys := func(name string, cents ...int) error {
			tx, err := client.Tx(ctx)
			if err != nil {
				return err
			}
			u, err := tx.User.Create().SetName(name).Save(ctx)
			for _, c := range cents {
				if err == nil {
					_, err = tx.Order.Create().SetBuyer(u).SetCents(c).Save(ctx)
				}
			}
			if err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		}
		s.must(buys("Ann", 100, 250))
		if err := buys("Bob", 500, -1); !ent.IsValidationError(errors.Unwrap(err)) && !ent.IsValidationError(err) {
			t.Errorf("an order of a negative amount: %v", err)
		}
		if err := client.User.Create().SetName("Ann").Exec(ctx); !ent.IsConstraintError(err) {
			t.Errorf("a second Ann: %v", err)
		}

		s.failOver()

		s.must(buys("Zoe", 700))
		all, err := client.User.Query().WithOrders(func(q *ent.OrderQuery) { q.Order(order.ByCents()) }).Order(user.ByName()).All(ctx)
		s.must(err)
		if len(all) != 2 || len(all[0].Edges.Orders) != 2 || all[0].Edges.Orders[1].Cents != 250 || all[1].Edges.Orders[0].Cents != 700 {
			t.Errorf("found %v", all)
		}
		spent, err := client.Order.Query().Where(order.HasBuyerWith(user.Name("Ann"))).Aggregate(ent.Sum(order.FieldCents)).Int(ctx)
		if err != nil || spent != 350 {
			t.Errorf("Ann spent %d, %v", spent, err)
		}
		s.check()
	})
}
