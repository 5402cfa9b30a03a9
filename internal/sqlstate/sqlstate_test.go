package sqlstate

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

func TestOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("57P01"), ""},
		{&pgconn.PgError{Code: "57P01"}, AdminShutdown},
		{fmt.Errorf("with more: %w", &pgconn.PgError{Code: "57014"}), QueryCanceled},
		{&pq.Error{Code: "25P03"}, IdleInTransactionTimeout},
	} {
		if got := Of(test.err); got != test.want {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

func TestEndsSession(t *testing.T) {
	for _, test := range []struct {
		severity, state string
		want            bool
	}{
		{"", "", false},
		{"FATAL", "57P01", true},
		{"ERROR", "57P01", false},
		{"PANIC", "XX000", true},
		{"VERHÄNGNISVOLL", "25P03", true},
		{"FEHLER", "23505", false},
	} {
		if got := EndsSession(test.severity, test.state); got != test.want {
			t.Errorf("%s %s: %v", test.severity, test.state, got)
		}
	}
}

func TestClasses(t *testing.T) {
	for state, lacks := range map[string]bool{"": false, "4": false, "42883": true, "42501": true, "0A000": true, "3F000": true, "57014": false} {
		if Lacks(state) != lacks {
			t.Errorf("%q: lacks is %v", state, !lacks)
		}
	}
}
