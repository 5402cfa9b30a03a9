package managedpg

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	internalconn "github.com/managedpg/managedpg/internal/conn"
)

// PgxConn takes a connection from db and calls fn with pgx's own inside it, for what only pgx has: COPY (CopyFrom), LISTEN
// (WaitForNotification), batches (SendBatch). ctx is for the checkout; one that is meant to be long is marked by [LongCheckout]. The
// connection goes back when fn returns, and fn's error is returned:
//
//	err := managedpg.PgxConn(ctx, db, func(c *pgx.Conn) error {
//		_, err := c.CopyFrom(ctx, pgx.Identifier{"orders"}, []string{"id"}, pgx.CopyFromRows(rows))
//		return err
//	})
//
// What fn does is pgx's own: it is neither counted nor sent again, and its errors are pgx's. c must not be used after fn has returned. A
// LISTEN or SET stays with the connection, so fn takes it back; a transaction that fn leaves open costs the connection. db may be
// wrapped by otelsql or sqlmw. With base_driver=pq it is an error.
func PgxConn(ctx context.Context, db *sql.DB, fn func(c *pgx.Conn) error) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Raw(func(driverConn any) error {
		base, err := internalconn.UnwrapContext(ctx, driverConn)
		if err != nil {
			return err
		}
		inner, ok := base.(*stdlib.Conn)
		if !ok {
			return fmt.Errorf("managedpg: PgxConn needs a connection of pgx's, and this is a %T", base)
		}
		return fn(inner.Conn())
	})
}
