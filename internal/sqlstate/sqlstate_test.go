package sqlstate

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		err             error
		state, severity string
		ends            bool
	}{
		{nil, "", "", false},
		{errors.New("57P01"), "", "", false},
		{&pgconn.PgError{Code: "57P01", Severity: "FATAL"}, AdminShutdown, "FATAL", true},
		{&pgconn.PgError{Code: "57P01", Severity: "FATALER", SeverityUnlocalized: "ERROR"}, AdminShutdown, "ERROR", false},
		{fmt.Errorf("with more: %w", &pgconn.PgError{Code: "23505", Severity: "ERROR"}), "23505", "ERROR", false},
		{&pq.Error{Code: "57014", Severity: "ERROR"}, QueryCanceled, "ERROR", false},
		{&pq.Error{Code: "25P03", Severity: "FATAL"}, IdleInTransactionTimeout, "FATAL", true},
		{&pq.Error{Code: "25P03", Severity: "VERHÄNGNISVOLL"}, IdleInTransactionTimeout, "VERHÄNGNISVOLL", true},
		{&pq.Error{Code: "23505", Severity: "FEHLER"}, "23505", "FEHLER", false},
	} {
		if state, severity, ends := Of(test.err), Severity(test.err), EndsSession(test.err); state != test.state || severity != test.severity || ends != test.ends {
			t.Errorf("%v: state %q, severity %q, ends the session %v", test.err, state, severity, ends)
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
