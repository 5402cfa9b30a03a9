package main

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// pair is two servers: the one that is preferred, and the other.
type pair struct {
	a, b *pgtest.Cluster
	same bool         // one replicates the other: what is on both is one row
	hole func() error // what ends a's black hole; nil: there is none
}

// A short queue of connections is soon full.
var conf = pgtest.Conf("max_connections=40")

// independent are two servers that know nothing of each other.
func independent() (*pair, error) {
	p := &pair{}
	var err error
	if p.a, err = pgtest.New(conf); err != nil {
		return nil, err
	}
	if p.b, err = pgtest.New(conf, pgtest.OwnSystem()); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// replicated are a primary and its standby.
func replicated() (*pair, error) {
	a, err := pgtest.New(conf)
	if err != nil {
		return nil, err
	}
	p := &pair{a: a, same: true}
	if p.b, err = a.Standby(); err != nil {
		p.close()
		return nil, err
	}
	return p, p.synchronous()
}

// synchronous makes a wait for b before it acknowledges a commit. It is said with ALTER SYSTEM after b was made, so that
// b, once promoted, waits for nobody.
func (p *pair) synchronous() error {
	return p.a.Exec("ALTER SYSTEM SET synchronous_standby_names = '"+p.b.Name()+"'", "SELECT pg_reload_conf()")
}

func (p *pair) close() {
	for _, c := range []*pgtest.Cluster{p.a, p.b} {
		if c != nil {
			c.Close()
		}
	}
}

// swap makes a standby of the server that was lost.
func (p *pair) swap() error {
	p.a, p.b = p.b, p.a
	if err := p.b.RejoinAsStandby(p.a); err != nil {
		return err
	}
	return p.synchronous()
}

// open makes a pool over both, with an empty table to insert into.
func (p *pair) open(with setup, params ...string) (*sql.DB, error) {
	on := []*pgtest.Cluster{p.a}
	for _, param := range params {
		if param == "target_session_attrs=any" {
			on = append(on, p.b)
		}
	}
	for _, c := range on {
		if err := c.Exec("DROP TABLE IF EXISTS calls", "CREATE TABLE calls (id bigint, port int)"); err != nil {
			return nil, err
		}
	}
	params = append(append(with.params(), "failover_urls="+p.b.DSN()), params...)
	db, err := sql.Open("managedpg", p.a.DSNFor("postgres", params...))
	if err == nil {
		db.SetMaxIdleConns(workers)
		if with.pool == "present" {
			db.SetMaxIdleConns(0)
		}
	}
	return db, err
}

// inserted counts the rows of each id by the server that inserted them.
func (p *pair) inserted(cs ...*pgtest.Cluster) (map[int64]map[int]int, error) {
	rows := map[int64]map[int]int{}
	for _, c := range cs {
		here := map[int64]map[int]int{}
		list, err := c.QueryString("SELECT string_agg(id || ':' || port, ' ') FROM calls")
		if err != nil {
			return nil, err
		}
		for _, entry := range strings.Fields(list) {
			id, port, _ := strings.Cut(entry, ":")
			n, err1 := strconv.ParseInt(id, 10, 64)
			at, err2 := strconv.Atoi(port)
			if err1 != nil || err2 != nil {
				return nil, fmt.Errorf("row %q", entry)
			}
			if here[n] == nil {
				here[n] = map[int]int{}
			}
			here[n][at]++
		}
		for id, by := range here {
			if rows[id] == nil {
				rows[id] = map[int]int{}
			}
			for at, times := range by {
				if p.same {
					rows[id][at] = max(rows[id][at], times)
				} else {
					rows[id][at] += times
				}
			}
		}
	}
	return rows, nil
}

// blackHole makes the first server's address swallow SYNs.
func (p *pair) blackHole() (err error) {
	p.hole, err = p.a.BlackHole()
	return err
}

// thaw lets the first server go on.
func thaw(p *pair) error {
	undo := p.hole
	if undo == nil {
		return p.a.Thaw()
	}
	p.hole = nil
	return undo()
}
