package failover_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/failover"
)

// cluster is what is true of three servers of one system while a random play of deaths, promotions and returns goes on.
type cluster struct {
	*rig
	rand *rand.Rand

	mu       sync.Mutex
	primary  int
	timeline int64
	since    time.Time // the primary has been one
}

// becomes makes a server something, from now on.
func (c *cluster) becomes(i int, o failover.Observation) {
	latency := time.Duration(c.rand.IntN(40)) * time.Millisecond
	c.servers[i].set(func(s *server) { s.latency = latency })
	c.servers[i].back(o)
}

// play kills the primary, promotes another, and brings the old one back, as it was or as a standby.
func (c *cluster) play() {
	some := func() { // as long as an answer takes, or as long as an outage
		limit := []int{60, 1500}[c.rand.IntN(2)]
		time.Sleep(time.Duration(c.rand.IntN(limit)) * time.Millisecond)
	}
	for range 4 {
		some()
		old := c.primary
		was := c.servers[old].observed()
		c.servers[old].die()
		some()
		c.mu.Lock()
		c.primary = (old + 1 + c.rand.IntN(2)) % 3
		c.timeline++
		c.becomes(c.primary, writer(c.timeline))
		c.since = time.Now()
		c.mu.Unlock()
		some()
		if c.rand.IntN(2) == 0 {
			c.becomes(old, was)
			some()
		}
		for i := range c.servers {
			if i != c.primary {
				c.becomes(i, standby(c.timeline))
			}
		}
		some()
		some()
	}
}

// use connects again and again, and checks what it gets.
func (c *cluster) use(over <-chan struct{}, rand *rand.Rand) {
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(rand.IntN(30)) * time.Millisecond):
		}
		var newest int64
		for _, e := range c.Health().Endpoints {
			newest = max(newest, e.Timeline)
		}
		began, at, epoch := time.Now(), 0, uint64(0)
		ctx, cancel := c.within(5 * time.Second)
		err := c.Connect(ctx, time.Time{}, func(ctx context.Context, to failover.Route) error {
			at, epoch = to.Member, to.Epoch.Load()
			return c.servers[at].dial(ctx)
		})
		cancel()
		c.mu.Lock()
		primary, since := c.primary, c.since
		c.mu.Unlock()
		if err != nil {
			if began.After(since) && time.Since(since) >= 5*time.Second {
				c.t.Errorf("nobody found, though %d has been the primary for %v: %v", primary, time.Since(since), err)
			}
			continue
		}
		if got := c.servers[at].observed(); got.Timeline < newest && got.Role == failover.ReadWrite && began.After(since) {
			c.t.Errorf("connected to %d on timeline %d, though %d was seen", at, got.Timeline, newest)
		}
		if at != primary || began.Before(since) || c.Epoch(at).Load() != epoch {
			continue // whoever made such a connection closes it, and makes another
		}
		time.Sleep(300 * time.Millisecond)
		c.mu.Lock()
		still := c.since.Equal(since) && c.servers[at].alive()
		c.mu.Unlock()
		if still && c.Epoch(at).Load() != epoch {
			c.t.Errorf("a connection to the primary %d, made %v after its promotion, was given up", at, began.Sub(since))
		}
	}
}

// TestPromotionsInAnyOrder plays deaths, promotions and returns in many orders, with answers that arrive late.
func TestPromotionsInAnyOrder(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			scene(t, func(o *failover.Options) {
				targeting("read-write")(o)
				o.Failback = false
				o.HealthCheckInterval = 500 * time.Millisecond
			}, []failover.Observation{writer(1), standby(1), standby(1)}, func(r *rig) {
				c := &cluster{rig: r, rand: rand.New(rand.NewPCG(seed, 1)), timeline: 1, since: time.Now()}
				over := make(chan struct{})
				var users sync.WaitGroup
				for i := range r.servers {
					c.becomes(i, r.servers[i].observed())
				}
				for user := range uint64(3) {
					users.Go(func() { c.use(over, rand.New(rand.NewPCG(seed, 2+user))) })
				}
				c.play()
				close(over)
				users.Wait()
			})
		})
	}
}
