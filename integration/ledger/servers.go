package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// servers are a primary and its synchronous standby, each behind a proxy that loses answers and a relay that can be shut.
type servers struct {
	nodes   [2]*node
	primary int
	zone    *zone
	tb      *cleanups
}

type node struct {
	*pgtest.Cluster
	proxy *pgtest.Proxy
	relay *relay
}

// cleanups is what pgtest's proxies need of a test.
type cleanups struct {
	testing.TB
	funcs []func()
	err   error
}

func (c *cleanups) Helper()           {}
func (c *cleanups) Cleanup(f func())  { c.funcs = append(c.funcs, f) }
func (c *cleanups) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (c *cleanups) Errorf(format string, args ...any) {
	c.err = errors.Join(c.err, fmt.Errorf(format, args...))
}

func (c *cleanups) run() {
	for i := len(c.funcs) - 1; i >= 0; i-- {
		c.funcs[i]()
	}
}

// maxConnections is what each server takes.
const maxConnections = 60

func startServers() (s *servers, err error) {
	s = &servers{tb: &cleanups{}, zone: newZone()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	a, err := pgtest.New(pgtest.Conf(fmt.Sprintf("max_connections=%d", maxConnections)))
	if err != nil {
		return nil, err
	}
	s.tb.Cleanup(func() { a.Close() })
	b, err := a.Standby()
	if err != nil {
		return nil, err
	}
	s.tb.Cleanup(func() { b.Close() })
	for i, c := range []*pgtest.Cluster{a, b} {
		n := &node{Cluster: c, proxy: pgtest.NewProxy(s.tb, c.Addr())}
		if n.relay, err = newRelay(n.proxy.Addr()); err != nil {
			return nil, err
		}
		s.tb.Cleanup(n.relay.close)
		s.nodes[i] = n
	}
	return s, s.replicate()
}

func (s *servers) close() { s.tb.run() }

func (s *servers) first() *node  { return s.nodes[s.primary] }
func (s *servers) second() *node { return s.nodes[1-s.primary] }

// hosts are where clients connect: names, and the relays' ports.
func (s *servers) hosts() []string {
	var hosts []string
	for i, n := range s.nodes {
		_, port, _ := strings.Cut(n.relay.addr(), ":")
		hosts = append(hosts, s.zone.host(i)+":"+port)
	}
	return hosts
}

// replicate makes the primary wait for its standby before it acknowledges a commit. It is said once the standby streams,
// and not in the file that the standby has a copy of, so that after its promotion it waits for nobody.
func (s *servers) replicate() error {
	err := s.first().Exec("ALTER SYSTEM SET synchronous_standby_names = '"+s.second().Name()+"'", "SELECT pg_reload_conf()")
	if err != nil {
		return err
	}
	return within(20*time.Second, func() error {
		state, err := s.first().QueryString("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
		if err == nil && state != "sync" {
			err = fmt.Errorf("the standby of %v is %q", s.first(), state)
		}
		return err
	})
}

// withSettings changes settings of the primary for a while.
func (s *servers) withSettings(d time.Duration, settings ...string) error {
	var set, reset []string
	for _, setting := range settings {
		name, _, _ := strings.Cut(setting, " ")
		set, reset = append(set, "ALTER SYSTEM SET "+setting), append(reset, "ALTER SYSTEM RESET "+name)
	}
	if err := s.first().Exec(append(set, "SELECT pg_reload_conf()")...); err != nil {
		return err
	}
	time.Sleep(d)
	return within(20*time.Second, func() error { // an idle timeout may hit this session as well
		return s.first().Exec(append(reset, "SELECT pg_reload_conf()")...)
	})
}

// promote makes the standby the primary.
func (s *servers) promote() error {
	s.primary = 1 - s.primary
	return s.first().Promote()
}

// rejoin makes a standby of the old primary.
func (s *servers) rejoin() error {
	if err := s.second().RejoinAsStandby(s.first().Cluster); err != nil {
		return err
	}
	return s.replicate()
}

func within(limit time.Duration, try func() error) error {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if err := try(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// ready waits for the primary.
func (s *servers) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.first().WaitReady(ctx)
}

// url is a DSN of all servers.
func (s *servers) url(params ...string) string {
	return "postgres://postgres@" + strings.Join(s.hosts(), ",") + "/postgres?sslmode=disable&" + strings.Join(params, "&")
}

// keys is the same as key=value pairs: lib/pq takes no several hosts in a URL.
func (s *servers) keys(params ...string) string {
	var hosts, ports []string
	for _, at := range s.hosts() {
		host, port, _ := strings.Cut(at, ":")
		hosts, ports = append(hosts, host), append(ports, port)
	}
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable %s",
		strings.Join(hosts, ","), strings.Join(ports, ","), strings.Join(params, " "))
}
