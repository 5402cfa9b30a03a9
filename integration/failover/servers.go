package main

import (
	"database/sql"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// pair is two servers: the one that is preferred, and the other.
type pair struct {
	a, b  *pgtest.Cluster
	same  bool       // one replicates the other: what is on both is one row
	plugs []net.Conn // what fills a's queue of connections
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
	p.unplug()
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

// blackHole makes a server one whose address swallows SYNs, as a firewall does that drops: the server is frozen, so that it
// accepts nothing, and its queue of connections filled, so that the system drops what else comes. Needs no root.
func (p *pair) blackHole() error {
	if err := p.a.Freeze(); err != nil {
		return err
	}
	for {
		c, err := net.DialTimeout("tcp", p.a.Addr(), 30*time.Millisecond)
		if err != nil {
			var timeout net.Error
			if e, ok := err.(net.Error); ok {
				timeout = e
			}
			if timeout != nil && timeout.Timeout() {
				return nil
			}
			return err
		}
		p.plugs = append(p.plugs, c)
		if len(p.plugs) > 1000 {
			return fmt.Errorf("the queue of %v is never full", p.a)
		}
	}
}

func (p *pair) unplug() {
	for _, c := range p.plugs {
		c.Close()
	}
	p.plugs = nil
}
