package evidence_test

import (
	"context"
	"fmt"
	"io"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/managedpg/managedpg/internal/evidence"
)

// What an error says about the server that it came from.
func ExampleOf() {
	for _, err := range []error{
		io.EOF,
		syscall.ECONNREFUSED,
		context.Canceled,
		context.DeadlineExceeded,
		&pgconn.PgError{Code: "57P01"}, // terminating connection due to administrator command
		&pgconn.PgError{Code: "53300"}, // too many connections
		&pgconn.PgError{Code: "28P01"}, // wrong password
		&pgconn.PgError{Code: "23505"}, // a key that exists already
	} {
		fmt.Println(evidence.Of(err))
	}
	// Output:
	// lost
	// lost
	// none
	// timed out
	// ended
	// busy
	// refused
	// answered
}
