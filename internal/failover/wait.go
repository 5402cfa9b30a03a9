package failover

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// wait waits until things have changed, or for the next round.
func (c *checkout) wait(changed <-chan struct{}) error {
	budget := c.opts.FailoverTimeout - time.Since(c.began)
	if budget <= 0 || c.opts.FailoverRetryAttempts > 0 && c.rounds >= c.opts.FailoverRetryAttempts {
		return c.fail(nil)
	}
	c.waited = true
	c.mu.Lock()
	c.hastenLocked()
	c.waiting++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.waiting--
		c.waitedAt = time.Now()
		c.mu.Unlock()
	}()

	delay := c.opts.FailoverRetryDelay
	timer := time.NewTimer(min(budget, delay-rand.N(delay/2+1)))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
		if time.Since(c.began) >= c.opts.FailoverTimeout {
			return c.fail(nil)
		}
		c.rounds++
		clear(c.tried)
		clear(c.looked)
	case <-c.done:
		return ErrClosed
	case <-c.ctx.Done():
		return c.fail(c.ctx.Err())
	}
	return nil
}

// backOff waits before the servers without room are asked again.
func (c *checkout) backOff() error {
	budget := c.opts.FailoverTimeout - time.Since(c.began)
	if budget <= 0 {
		return c.fail(nil)
	}
	delay := busyAtMost
	if c.busy < 6 {
		delay = min(delay, firstBusy<<c.busy)
	}
	c.busy++
	timer := time.NewTimer(min(budget, delay-rand.N(delay/2)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.done:
		return ErrClosed
	case <-c.ctx.Done():
		return c.fail(c.ctx.Err())
	}
	if time.Since(c.began) >= c.opts.FailoverTimeout {
		return c.fail(nil)
	}
	for _, e := range c.full {
		delete(c.tried, e)
	}
	c.full = nil
	return nil
}

// endedLocked is the error of a checkout whose context ended during a dial, or waiting for one. When nothing else went wrong
// before, it is just that.
func (c *checkout) endedLocked(e *endpoint, err, ctxErr error) error {
	if c.waited || len(c.tried) > 1 {
		return c.failLocked(ctxErr)
	}
	if errors.Is(err, ctxErr) {
		return err
	}
	return fmt.Errorf("managedpg: pool %q: dialling %s: %w: %w", c.opts.Pool, e.name, ctxErr, err)
}

// fail is failLocked with the lock taken.
func (c *checkout) fail(ctxErr error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failLocked(ctxErr)
}

// failLocked is the error of a checkout that found no endpoint.
func (c *checkout) failLocked(ctxErr error) error {
	n := &NoEndpointError{Pool: c.opts.Pool, Waited: time.Since(c.began), Err: ctxErr}
	for _, e := range c.listedLocked() {
		if e.gone {
			continue
		}
		entry := EndpointError{Endpoint: e.name, State: e.state, Reason: strings.TrimPrefix(c.whyNotLocked(e), string(e.state)+": "), Err: e.lastErr}
		if t, ok := c.tried[e]; ok {
			entry.Err = t.err
			if !e.fenced && e.admitted {
				entry.Reason = redact(t.err.Error())
			}
		}
		if entry.Reason == "" {
			entry.Reason = "usable, but not reached in time"
		}
		n.Endpoints = append(n.Endpoints, entry)
	}
	return n
}
