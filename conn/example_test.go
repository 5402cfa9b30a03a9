package conn_test

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/conn"
)

// What became of a COMMIT that was sent and not answered. InTx with ResolveCommit has asked for some seconds; whoever has more time asks
// again.
func ExampleLostError_Resolve() {
	var db *sql.DB
	ctx := context.Background()
	err := managedpg.InTx(ctx, db, &managedpg.TxOptions{ResolveCommit: true}, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ($1)", 42)
		return err
	})
	var lost *conn.LostError
	if !errors.As(err, &lost) {
		return // committed, or an error that says that it is not
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	switch outcome, why := lost.Resolve(asking); outcome {
	case conn.Committed:
		log.Println("committed")
	case conn.Aborted:
		log.Println("rolled back, or never arrived: run it again")
	default:
		log.Println("nobody can tell:", why)
	}
}
