package sqlxbind

import (
	"testing"

	"github.com/jmoiron/sqlx"
)

func TestBindType(t *testing.T) {
	if got := sqlx.Rebind(sqlx.BindType("managedpg"), "SELECT ?, ?"); got != "SELECT $1, $2" {
		t.Errorf("sqlx makes of it %q", got)
	}
}
