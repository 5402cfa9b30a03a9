package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

var faults = []fault{
	{"new connections are refused, those there are work", refused(pgtest.RelayMode{SQLState: "53300"})},
	{"new connections are hung up on", refused(pgtest.RelayMode{HangUp: true})},
	{"a smart shutdown (57P03)", refused(pgtest.RelayMode{SQLState: "57P03"})},
	{"the same, and a second host that is unreachable", refused(pgtest.RelayMode{SQLState: "57P03"}, "127.0.0.1:1")},
	{"a full server before one with room", fullFirst},
	{"a report on a standby that is promoted", promoted},
	{"a transaction while the server turns read-only", readOnly},
	{"a statement while a transaction's rows are open", openRows},
	{"one call in ten runs into its deadline", deadlines},
	{"overload: 2 x the capacity, deadline 500 ms", overload(2)},
	{"overload: 4 x the capacity, deadline 500 ms", overload(4)},
	{"0.7 x the capacity after the server stood still for 2 s", standstill},
	{"opening takes 150 ms, calls may take 100", slowOpening},
	{"a server that hangs up for 1 s and is back", comesBack},
	{"Prepare after a column's type was changed", prepareAnew},
}

// through is a relay before a server of its own, and a database through it. More hosts may follow the relay's.
func through(s subject, more []string, use func(r *pgtest.Relay, c *pgtest.Cluster, db *sql.DB) (int64, int64, error)) (ok, failed int64, err error) {
	c, closeServer, err := server()
	if err != nil {
		return 0, 0, err
	}
	defer closeServer()
	r, err := pgtest.NewRelay(c.Addr())
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	db, err := s.open("any", append([]string{r.Addr()}, more...)...)
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	return use(r, c, db)
}

func refused(how pgtest.RelayMode, more ...string) func(subject) (int64, int64, error) {
	return func(s subject) (int64, int64, error) {
		return through(s, more, func(r *pgtest.Relay, _ *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
			if err := warm(db); err != nil {
				return 0, 0, err
			}
			r.Set(how)
			ok, failed := closed(db, connections, 400, func(db *sql.DB) error {
				time.Sleep(2 * time.Millisecond) // so that a probe or two come in between
				return statement(0, "SELECT 1")(db)
			})
			return ok, failed, nil
		})
	}
}

func fullFirst(s subject) (ok, failed int64, err error) {
	c, closeServer, err := server()
	if err != nil {
		return 0, 0, err
	}
	defer closeServer()
	full, err := pgtest.NewRelay(c.Addr())
	if err != nil {
		return 0, 0, err
	}
	defer full.Close()
	full.Set(pgtest.RelayMode{SQLState: "53300"})
	db, err := s.open("read-write", full.Addr(), c.Addr())
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	ok, failed = closed(db, connections, 100, statement(time.Second, "SELECT 1"))
	return ok, failed, nil
}

func promoted(s subject) (ok, failed int64, err error) {
	primary, closePrimary, err := server()
	if err != nil {
		return 0, 0, err
	}
	defer closePrimary()
	standby, err := primary.Standby()
	if err != nil {
		return 0, 0, err
	}
	defer standby.Close()
	db, err := s.open("standby", standby.Addr())
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	if err := warm(db); err != nil {
		return 0, 0, err
	}
	promotion := make(chan error, 1)
	time.AfterFunc(200*time.Millisecond, func() { promotion <- standby.Promote() })
	ok, failed = closed(db, connections, 1, statement(0, "SELECT pg_sleep(1.5)"))
	return ok, failed, <-promotion
}

func readOnly(s subject) (int64, int64, error) {
	c, closeServer, err := server()
	if err != nil {
		return 0, 0, err
	}
	defer closeServer()
	if err := c.Exec("CREATE TABLE kept (n int)"); err != nil {
		return 0, 0, err
	}
	db, err := s.open("read-write", c.Addr())
	if err != nil {
		return 0, 0, err
	}
	defer db.Close()
	flip := make(chan error, 1)
	time.AfterFunc(200*time.Millisecond, func() {
		flip <- c.Exec("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
	})
	ok, failed := closed(db, connections, 1, func(db *sql.DB) error {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		defer tx.Rollback()
		for range 2 {
			if _, err := tx.Exec("INSERT INTO kept SELECT 1 FROM pg_sleep(0.5)"); err != nil {
				return err
			}
		}
		return tx.Commit()
	})
	return ok, failed, <-flip
}

// openRows counts the transactions that end well, though a statement in them was turned down.
func openRows(s subject) (ok, failed int64, err error) {
	return through(s, nil, func(_ *pgtest.Relay, _ *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
		ok, failed := closed(db, connections, 20, func(db *sql.DB) error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			rows, err := tx.Query("SELECT generate_series(1, 3)")
			if err != nil {
				return err
			}
			rows.Next()
			_, _ = tx.Exec("SELECT 1")
			if err := rows.Close(); err != nil {
				return err
			}
			return tx.Commit()
		})
		return ok, failed, nil
	})
}

func deadlines(s subject) (ok, failed int64, err error) {
	return through(s, nil, func(_ *pgtest.Relay, _ *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
		if err := warm(db); err != nil {
			return 0, 0, err
		}
		n := 0
		ok, failed := closed(db, 1, 200, func(db *sql.DB) error {
			if n++; n%10 == 0 {
				return statement(20*time.Millisecond, "SELECT pg_sleep(1)")(db)
			}
			return statement(20*time.Millisecond, "SELECT 1")(db)
		})
		return ok, failed, nil
	})
}

// service is a call's length where capacity is what matters.
const service = 10 * time.Millisecond

const (
	serve    = "SELECT pg_sleep(0.01)"
	capacity = float64(connections) / (float64(service) / float64(time.Second)) // calls a second
)

func overload(factor float64) func(subject) (int64, int64, error) {
	return func(s subject) (int64, int64, error) {
		return through(s, nil, func(_ *pgtest.Relay, _ *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
			if err := warm(db); err != nil {
				return 0, 0, err
			}
			ok, failed := offered(db, factor*capacity, 3*time.Second, statement(500*time.Millisecond, serve))
			return ok, failed, nil
		})
	}
}

func standstill(s subject) (ok, failed int64, err error) {
	return through(s, nil, func(_ *pgtest.Relay, c *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
		if err := warm(db); err != nil {
			return 0, 0, err
		}
		if err := c.Freeze(); err != nil {
			return 0, 0, err
		}
		thawed := make(chan error, 1) // lib/pq's calls end with that, whatever their deadline
		time.AfterFunc(2*time.Second, func() { thawed <- c.Thaw() })
		offered(db, 0.7*capacity, 2*time.Second, statement(200*time.Millisecond, serve))
		if err := <-thawed; err != nil {
			return 0, 0, err
		}
		time.Sleep(200 * time.Millisecond)
		ok, failed := offered(db, 0.7*capacity, 2*time.Second, statement(200*time.Millisecond, serve))
		return ok, failed, nil
	})
}

func slowOpening(s subject) (ok, failed int64, err error) {
	return through(s, nil, func(r *pgtest.Relay, _ *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
		r.Set(pgtest.RelayMode{Delay: 150 * time.Millisecond})
		ok, failed := closed(db, 2*connections, 20, statement(100*time.Millisecond, "SELECT 1"))
		return ok, failed, nil
	})
}

// comesBack counts the calls after the server's return.
func comesBack(s subject) (ok, failed int64, err error) {
	return through(s, nil, func(r *pgtest.Relay, _ *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
		r.Set(pgtest.RelayMode{HangUp: true})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		for ctx.Err() == nil {
			closed(db, 2*connections, 1, statement(100*time.Millisecond, "SELECT 1"))
			time.Sleep(time.Millisecond)
		}
		r.Set(pgtest.RelayMode{})
		time.Sleep(50 * time.Millisecond)
		ok, failed := closed(db, connections, 50, statement(time.Second, "SELECT 1"))
		return ok, failed, nil
	})
}

func prepareAnew(s subject) (ok, failed int64, err error) {
	return through(s, nil, func(_ *pgtest.Relay, c *pgtest.Cluster, db *sql.DB) (int64, int64, error) {
		if err := c.Exec("CREATE TABLE t (a int)"); err != nil {
			return 0, 0, err
		}
		insert := func(value any) func(*sql.DB) error {
			return func(db *sql.DB) error {
				st, err := db.Prepare("INSERT INTO t VALUES ($1)")
				if err != nil {
					return err
				}
				defer st.Close()
				_, err = st.Exec(value)
				return err
			}
		}
		if _, failed := closed(db, connections, 10, insert(1)); failed > 0 {
			return 0, failed, nil
		}
		if err := c.Exec("ALTER TABLE t ALTER a TYPE bigint"); err != nil {
			return 0, 0, err
		}
		ok, failed := closed(db, connections, 10, insert(int64(5_000_000_000)))
		return ok, failed, nil
	})
}
