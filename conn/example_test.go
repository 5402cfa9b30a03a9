package conn_test

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"time"

	"github.com/managedpg/managedpg/conn"
)

// What became of a COMMIT that was sent and not answered. InTx with ResolveCommit asks by itself; this is for a transaction
// begun with WithAttempt.
func ExampleLostError_Resolve() {
	var db *sql.DB
	ctx := context.Background()
	tx, err := db.BeginTx(conn.WithAttempt(ctx, &conn.Attempt{Resolve: true}), nil)
	if err != nil {
		log.Fatal(err)
	}
	// ... statements ...
	err = tx.Commit()
	var lost *conn.LostError
	if !errors.As(err, &lost) {
		return // committed, or an error that says that it is not
	}
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
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
