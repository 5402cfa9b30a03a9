package managedpg_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// server is the DSN of the examples' PostgreSQL, the one that the tests share. A program of yours has a DSN of its own.
func server() string { return pgtest.Shared(exampleTB{}).DSN() }

// exampleTB is for what wants a test, which an example hasn't.
type exampleTB struct{ testing.TB }

func (exampleTB) Helper() {}

func (exampleTB) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}
