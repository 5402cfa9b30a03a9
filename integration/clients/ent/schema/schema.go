// Package schema is what ent generates the package above from: users, and the orders that they place.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
)

type User struct{ ent.Schema }

func (User) Fields() []ent.Field { return []ent.Field{field.String("name").Unique()} }

func (User) Edges() []ent.Edge { return []ent.Edge{edge.To("orders", Order.Type)} }

type Order struct{ ent.Schema }

func (Order) Fields() []ent.Field { return []ent.Field{field.Int("cents").Positive()} }

func (Order) Edges() []ent.Edge {
	return []ent.Edge{edge.From("buyer", User.Type).Ref("orders").Unique().Required()}
}
