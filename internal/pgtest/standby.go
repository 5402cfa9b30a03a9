package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Standby makes a hot standby of the cluster with the same configuration and the options added, and returns when it
// answers and streams. It must be closed.
func (c *Cluster) Standby(opts ...Option) (*Cluster, error) {
	s, err := newCluster(opts)
	if err != nil {
		return nil, err
	}
	if err := s.follow(c, s.startOnFreePort); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// RejoinAsStandby throws the cluster's data away and brings it back on its port as a standby of another, as an operator
// does with an old primary. A server that runs is killed.
func (c *Cluster) RejoinAsStandby(of *Cluster) error {
	c.mu.Lock()
	err := errors.Join(c.kill(), os.RemoveAll(c.data()))
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.follow(of, c.Restart)
}

// Promote makes a standby a primary and returns when it accepts writes.
func (c *Cluster) Promote() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	conn, err := c.admin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	// pg_promote's own waiting looks ten times a second only.
	if _, err := firstValue(ctx, conn, "SELECT pg_promote(false)"); err != nil {
		return err
	}
	return poll(ctx, func() error {
		recovering, err := firstValue(ctx, conn, "SELECT pg_is_in_recovery()")
		if err == nil && recovering != "f" {
			err = c.errorf("is still a standby")
		}
		return err
	})
}

// follow fills the data folder from a primary and starts the server on it.
func (c *Cluster) follow(primary *Cluster, start func() error) error {
	// A slot of an earlier life as this primary's standby would be in the way.
	err := primary.Exec("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '" + c.name + "'")
	if err != nil {
		return err
	}
	err = run(filepath.Join(c.bin, "pg_basebackup"), "-D", c.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync",
		"-C", "-S", c.name, "-d", fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable application_name=%s",
			primary.port, c.name))
	if err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	if err := start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return poll(ctx, func() error { return c.streamsFrom(ctx, primary) })
}

func (c *Cluster) streamsFrom(ctx context.Context, primary *Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	state, err := primary.queryString(ctx, "SELECT state FROM pg_stat_replication WHERE application_name = '"+c.name+"'")
	if err == nil && state != "streaming" {
		err = c.errorf("does not stream from %v but is %q", primary, state)
	}
	return err
}
