// Package sqlxbind tells sqlx that managedpg's placeholders are PostgreSQL's: $1, $2, ... sqlx knows that of the driver
// names it has heard of, and of no others; without it NamedExec and Rebind leave question marks in the statement. It is
// imported for effect, once, by whoever opens a sqlx.DB as "managedpg":
//
//	import _ "github.com/managedpg/managedpg/driver/sqlxbind"
//
//	db, err := sqlx.Open("managedpg", dsn)
//
// A module of its own, it keeps sqlx out of the go.sum of those who don't use it, and registers no driver.
package sqlxbind

import "github.com/jmoiron/sqlx"

func init() { sqlx.BindDriver("managedpg", sqlx.DOLLAR) }
