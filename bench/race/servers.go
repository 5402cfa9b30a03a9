package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// pair is two servers: the one that is named first, and the other.
type pair struct {
	*pgtest.Pair
	proxies []*proxy // before each of the two; none: clients come to the servers themselves
}

var conf = pgtest.Conf("max_connections=60") // a short queue is soon full

// independent are two servers that know nothing of each other.
func independent() (*pair, error) {
	p, err := pgtest.Independent(conf)
	return &pair{Pair: p}, err
}

// replicated are a primary and its synchronous standby: what was told as done is on both.
func replicated() (*pair, error) {
	p, err := pgtest.Replicated(conf)
	return &pair{Pair: p}, err
}

// proxied are replicated servers behind a proxy each.
func proxied() (*pair, error) {
	p, err := replicated()
	if err != nil {
		return nil, err
	}
	for _, c := range []*pgtest.Cluster{p.A, p.B} {
		before, err := newProxy(c.Addr())
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.proxies = append(p.proxies, before)
	}
	return p, nil
}

func (p *pair) close() error {
	for _, before := range p.proxies {
		before.close()
	}
	return p.Pair.Close()
}

// dsn names both as pgx, lib/pq and managedpg all read it.
func (p *pair) dsn() string {
	portA, portB := p.A.Port(), p.B.Port()
	if p.proxies != nil {
		portA, portB = p.proxies[0].port(), p.proxies[1].port()
	}
	attrs := "any"
	if p.Same {
		attrs = "read-write"
	}
	return fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%d user=postgres dbname=postgres sslmode=disable target_session_attrs=%s",
		portA, portB, attrs)
}

// empty makes a table to insert into, on each server that takes one.
func (p *pair) empty() error {
	for _, c := range p.writers() {
		if err := c.Exec("DROP TABLE IF EXISTS calls", "CREATE TABLE calls (id bigint, port int)"); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) writers() []*pgtest.Cluster {
	if p.Same {
		return []*pgtest.Cluster{p.A}
	}
	return []*pgtest.Cluster{p.A, p.B}
}

// rows are the ports of the servers that inserted each id, once for each row.
type rows map[int64][]int

// inserted reads what is on some servers.
func inserted(on ...*pgtest.Cluster) (rows, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all := rows{}
	for _, c := range on {
		if err := c.WaitReady(ctx); err != nil {
			return nil, err
		}
		list, err := c.QueryString("SELECT string_agg(id || ':' || port, ' ') FROM calls")
		if err != nil {
			return nil, err
		}
		for _, row := range strings.Fields(list) {
			id, port, _ := strings.Cut(row, ":")
			n, err1 := strconv.ParseInt(id, 10, 64)
			at, err2 := strconv.Atoi(port)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
			all[n] = append(all[n], at)
		}
	}
	return all, nil
}
