package driver

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/managedpg/managedpg/internal/base"
	"github.com/managedpg/managedpg/internal/clock"
	"github.com/managedpg/managedpg/internal/conn"
	"github.com/managedpg/managedpg/internal/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Driver is what is registered under the name "managedpg".
type Driver struct {
	// FromDSN makes a pool of a DSN, without connecting.
	FromDSN func(dsn string) (*Connector, error)

	pool *Connector // of a sql.DB's own driver: the pool behind it

	mu     sync.Mutex
	byName map[string]*Connector // the pools of Open
}

// OpenConnector is what sql.Open calls. A DSN that is wrong is found here.
func (d *Driver) OpenConnector(dsn string) (driver.Connector, error) {
	c, err := d.FromDSN(dsn)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Open is for callers that know only connections. All connections of one DSN share a pool, which is never closed.
func (d *Driver) Open(dsn string) (driver.Conn, error) {
	c, err := d.shared(dsn)
	if err != nil {
		return nil, err
	}
	return c.Connect(context.Background())
}

func (d *Driver) shared(dsn string) (*Connector, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.byName[dsn]; c != nil {
		return c, nil
	}
	c, err := d.FromDSN(dsn)
	if err != nil {
		return nil, err
	}
	if d.byName == nil {
		d.byName = make(map[string]*Connector)
	}
	d.byName[dsn] = c
	return c, nil
}

// Pool is the pool behind a sql.DB whose driver this is; nil for the registered Driver.
func (d *Driver) Pool() *Connector { return d.pool }

// Options are what a pool is made of. Names, loggers and what ties the parts together are filled in by New.
type Options struct {
	Name      string // wanted: a pool that is open may have it already
	Endpoints []*base.Endpoint
	Probed    bool // the endpoints are asked for their health in the background
	Pool      conn.Options
	Failover  failover.Options
	Leaks     *leak.Options // nil: no leak detection
	Logger    func() *slog.Logger
	Settings  []Setting                            // to be shown
	Reads     bool                                 // a second pool for reads stands beside it
	FromDSN   func(dsn string) (*Connector, error) // for the Driver of the pool
}

// Connector is a pool. sql.OpenDB makes a sql.DB of it, whose Close closes it.
type Connector struct {
	driver Driver
	config conn.Options
	name   string
	opened time.Time
	pool   *conn.Pool
	router *router
	leaks  *leak.Tracker // nil without leak detection
	reads  *Connector    // the pool for reads beside it; nil: there is none

	pausing  sync.Mutex // so that the pool and the one for reads are paused together, and resumed
	settings []Setting
}

// Setting is a DSN key and its value, which holds no secret.
type Setting struct{ Key, Value string }

// Settings are what the pool was made with, but for its servers. Resize has changed what [Connector.Stats] says.
func Settings(c *Connector) []Setting { return c.settings }

// Waiting says at which lines of code checkouts wait for a connection now, those first at which most do.
func Waiting(c *Connector) []leak.Waiting { return c.pool.Waiting() }

// New makes a pool, without connecting.
func New(o Options) *Connector {
	c := &Connector{opened: time.Now(), name: reserve(o.Name), settings: o.Settings}
	c.driver.FromDSN, c.driver.pool = o.FromDSN, c
	o.Pool.Name, o.Pool.Logger = c.name, o.Logger
	o.Failover.Pool, o.Failover.Logger = c.name, o.Logger
	if o.Leaks != nil {
		of := *o.Leaks
		of.Pool, of.Logger, of.Base = c.name, o.Logger, clock.Time(0)
		c.leaks = leak.New(of)
		o.Pool.Leaks, o.Pool.ReclaimAfter = c.leaks, of.ReclaimAfter
	}
	c.router = newRouter(o, func() *conn.Pool { return c.pool })
	o.Pool.Prober = c.router.prober
	c.config = o.Pool
	c.pool = conn.New(o.Pool, c.router)
	if o.Reads {
		c.reads = New(o.forReads(c.name + "/reads"))
		c.pool.ReadBy(c.reads.pool)
	}
	register(c)
	return c
}

// forReads are the options of the pool for reads beside one of these.
func (o Options) forReads(name string) Options {
	o.Name, o.Reads = name, false
	o.Pool.ReadOnly, o.Pool.Role = true, true
	o.Failover.TargetSessionAttrs, o.Failover.Random = "prefer-standby", true
	return o
}

// Connect is for database/sql.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) { return c.pool.Connect(ctx) }

// Driver is for database/sql.
func (c *Connector) Driver() driver.Driver { return &c.driver }

// Close closes the pool: free connections at once, those in use when they are given back. sql.DB.Close calls it.
func (c *Connector) Close() error {
	unregister(c)
	if c.reads != nil {
		_ = c.reads.Close()
	}
	c.router.close()
	return c.pool.Close()
}

// Name is the pool's name in stats, logs and metrics.
func (c *Connector) Name() string { return c.name }

// Drain closes all free connections now, and each of the others when it is given back, so that from now on only new ones
// are used: after a change of a role's settings, say, or of the server behind an address. With standby_reads those of the pool for
// reads too.
func (c *Connector) Drain() {
	for _, each := range c.withReads() {
		each.pool.Drain()
	}
}

// withReads is the pool, and the one for reads beside it where there is one.
func (c *Connector) withReads() []*Connector {
	if c.reads == nil {
		return []*Connector{c}
	}
	return []*Connector{c, c.reads}
}

// Health is what the probes of the endpoints have found.
func (c *Connector) Health() failover.Health { return c.router.Health() }

// CheckNow probes all endpoints now, within ctx and health_check_timeout, and returns what was found. With standby_reads the pool for reads
// probes them too.
func (c *Connector) CheckNow(ctx context.Context) failover.Health {
	if c.reads != nil {
		var probes sync.WaitGroup
		defer probes.Wait()
		probes.Go(func() { c.reads.CheckNow(ctx) })
	}
	return c.router.CheckNow(ctx)
}

// Failover says which endpoint is used, and how it came to that.
func (c *Connector) Failover() failover.Status { return c.router.Status() }

// Failback moves to the best endpoint that a probe finds usable now, without waiting for failback_after. Connections in
// use elsewhere are closed when they are given back.
func (c *Connector) Failback(ctx context.Context) error { return c.router.Failback(ctx) }

// errNotGoverned: database/sql has the limits and the queue.
var errNotGoverned = errors.New("database/sql governs the pool: give pool_size")

// Resize changes pool_size and max_overflow (-1: no limit) at once. Surplus free connections are closed, those in use when they are
// given back. A pool for reads keeps its limits: it is resized by its own handle, which Pools has.
func (c *Connector) Resize(size, maxOverflow int) error {
	switch {
	case !c.governed():
		return fmt.Errorf("managedpg: pool %q: %w", c.name, errNotGoverned)
	case size < 1 || size > mostSize || maxOverflow < -1 || maxOverflow > mostSize:
		return fmt.Errorf("managedpg: pool %q: size %d and max_overflow %d: want a size from 1 to %d and a max_overflow from -1 to %d",
			c.name, size, maxOverflow, mostSize, mostSize)
	}
	c.pool.Resize(size, maxOverflow)
	return nil
}

// mostSize is the limit of pool_size and of max_overflow in a DSN too.
const mostSize = 10000

// Pause begins no checkout any more until Resume: those who want a connection wait, within their own limits. It returns when all
// connections were given back; else with the context's error and who still holds some, and the pool stays paused. With standby_reads
// the pool for reads is paused too.
func (c *Connector) Pause(ctx context.Context) error {
	if !c.governed() {
		return fmt.Errorf("managedpg: pool %q: %w", c.name, errNotGoverned)
	}
	both := c.withReads()
	drained := make([]<-chan struct{}, len(both))
	c.pausing.Lock()
	for i, each := range both {
		drained[i] = each.pool.Pause()
	}
	c.pausing.Unlock()
	var errs []error
	for i, each := range both {
		select {
		case <-drained[i]:
		case <-ctx.Done():
			select {
			case <-drained[i]:
			default:
				errs = append(errs, each.stillInUse(ctx.Err()))
			}
		}
	}
	return errors.Join(errs...)
}

// stillInUse is the error of a Pause that didn't see the pool drained: it says who holds connections.
func (c *Connector) stillInUse(err error) error {
	_, inUse := c.pool.Recorder.Now()
	who := ""
	for _, r := range c.Holders(longestHolders) {
		who += fmt.Sprintf("; held for %v by %s", r.Duration.Round(time.Millisecond), r.Caller)
	}
	return fmt.Errorf("managedpg: pool %q: paused, with %d connections still in use%s: %w", c.name, inUse, who, err)
}

// Resume ends Pause. Those who have waited are served.
func (c *Connector) Resume() {
	c.pausing.Lock()
	defer c.pausing.Unlock()
	for _, each := range c.withReads() {
		each.pool.Resume()
	}
}

func (c *Connector) governed() bool { return c.config.Size > 0 }

// ForgetTimelines makes fencing forget what it has seen, so that a server on a lower timeline than before is used again: an
// operator's word after a restore from a backup. The endpoints are probed anew. With standby_reads the pool for reads forgets too.
func (c *Connector) ForgetTimelines() {
	for _, each := range c.withReads() {
		each.router.ForgetTimelines()
	}
}

// Leaks are the checkouts that have been held for longer than leak_threshold, the longest first. It is empty without leak
// detection.
func (c *Connector) Leaks() []leak.Report {
	if c.leaks == nil {
		return nil
	}
	return c.leaks.Leaks()
}

// Usage says which lines of code used the pool's time during the last five minutes, those first that held connections for longest. It
// is an estimate from samples, and empty without leak detection.
func (c *Connector) Usage() []leak.Usage {
	if c.leaks == nil {
		return nil
	}
	return c.leaks.Usage()
}

// longestHolders is how many holders Stats names.
const longestHolders = 3

// Stats are the pool's figures now.
func (c *Connector) Stats() stats.Snapshot {
	s := c.limits()
	c.pool.Recorder.Fill(&s)
	c.pool.Fill(&s)
	if c.leaks != nil {
		s.LeakedConnections = int64(c.leaks.Leaked())
		s.TotalLeaks = c.leaks.Total()
		s.ReclaimedConnections = c.leaks.Reclaimed()
		for _, r := range c.leaks.Longest(longestHolders) {
			s.LongestHolders = append(s.LongestHolders, stats.Holder{Caller: r.Caller, Held: r.Duration})
		}
	}
	routed(&s, c.router.Status())
	return s
}

// Totals are the figures of Stats and Health counted since Opened, whatever ResetStats did, for those who publish
// counters: a counter that goes back would count as a restart. LongestHolders isn't filled in.
func (c *Connector) Totals() (stats.Snapshot, failover.Health) {
	s := c.limits()
	c.pool.Recorder.FillTotals(&s)
	c.pool.FillTotals(&s)
	if c.leaks != nil {
		s.LeakedConnections = int64(c.leaks.Leaked())
		s.TotalLeaks, s.ReclaimedConnections = c.leaks.Ever()
	}
	h, f := c.router.Totals()
	routed(&s, f)
	return s, h
}

// Opened is when the pool was made.
func (c *Connector) Opened() time.Time { return c.opened }

func (c *Connector) limits() stats.Snapshot {
	s := stats.Snapshot{Name: c.name, GovernedBy: stats.GovernedBySQL}
	if c.governed() {
		s.GovernedBy = stats.GovernedByDriver
		size, maxOverflow := c.pool.Limits()
		s.Size, s.MaxOverflow = int64(size), int64(maxOverflow)
		s.MinIdle = int64(c.config.MinIdle)
	}
	return s
}

func routed(s *stats.Snapshot, f failover.Status) {
	s.Endpoint, s.IsPrimary = f.Current, f.IsPrimary
	s.FailoverCount, s.FailbackCount = f.FailoverCount, f.FailbackCount
}

// Holders are the n checkouts that are held for longest now, whatever their age, the longest first. It is empty without
// leak detection.
func (c *Connector) Holders(n int) []leak.Report {
	if c.leaks == nil {
		return nil
	}
	return c.leaks.Longest(n)
}

// ResetStats makes the figures count anew from now on. What is open or in use stays counted as such.
func (c *Connector) ResetStats() {
	c.pool.ResetStats()
	c.router.ResetCounts()
	if c.leaks != nil {
		c.leaks.Reset()
	}
}

var (
	_ driver.Driver        = (*Driver)(nil)
	_ driver.DriverContext = (*Driver)(nil)
	_ driver.Connector     = (*Connector)(nil)
)
