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
	*pgtest.Pair
	hole func() error // what ends the first one's black hole; nil: there is none
}

// A short queue of connections is soon full.
var conf = pgtest.Conf("max_connections=40")

// independent are two servers that know nothing of each other.
func independent() (*pair, error) {
	p, err := pgtest.Independent(conf)
	return &pair{Pair: p}, err
}

// replicated are a primary and its synchronous standby.
func replicated() (*pair, error) {
	p, err := pgtest.Replicated(conf)
	return &pair{Pair: p}, err
}

// open makes a pool over both, with an empty table to insert into.
func (p *pair) open(with setup, params ...string) (*sql.DB, error) {
	on := []*pgtest.Cluster{p.A}
	for _, param := range params {
		if param == "target_session_attrs=any" {
			on = append(on, p.B)
		}
	}
	for _, c := range on {
		if err := c.Exec("DROP TABLE IF EXISTS calls", "CREATE TABLE calls (id bigint, port int)"); err != nil {
			return nil, err
		}
	}
	params = append(append(with.params(), "failover_urls="+p.B.DSN()), params...)
	db, err := sql.Open("managedpg", p.A.DSNFor("postgres", params...))
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
				if p.Same {
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
	p.hole, err = p.A.BlackHole()
	return err
}

// thaw lets the first server go on.
func thaw(p *pair) error {
	undo := p.hole
	if undo == nil {
		return p.A.Thaw()
	}
	p.hole = nil
	return undo()
}
