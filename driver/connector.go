package driver

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"time"

	"github.com/managedpg/managedpg/conn"
	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
	"github.com/managedpg/managedpg/stats"
)

// Driver is what is registered under the name "managedpg".
type Driver struct {
	pool *Connector // of a sql.DB's own driver: the pool behind it

	mu     sync.Mutex
	byName map[string]*Connector // the pools of Open
}

// OpenConnector is what sql.Open calls: it makes a pool of a DSN. A DSN that is wrong is found here.
func (d *Driver) OpenConnector(dsn string) (driver.Connector, error) {
	cfg, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return NewConnector(cfg)
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
	cfg, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	c, err := NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	if d.byName == nil {
		d.byName = make(map[string]*Connector)
	}
	d.byName[dsn] = c
	return c, nil
}

// Connector is a pool. sql.OpenDB makes a sql.DB of it, whose Close closes it; managedpg.OpenDB does both at once.
type Connector struct {
	driver Driver
	config *Config
	name   string
	opened time.Time
	pool   *conn.Pool
	router *router
	leaks  *leak.Tracker // nil without leak detection
}

// NewConnector makes a pool, without connecting. The Config is copied.
func NewConnector(cfg *Config) (*Connector, error) {
	cfg, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	endpoints, err := cfg.connect()
	if err != nil {
		return nil, fmt.Errorf("managedpg: %w", err)
	}
	c := &Connector{config: cfg, opened: time.Now(), name: reserve(cmp.Or(cfg.PoolName, endpoints[0].Name))}
	c.driver.pool = c
	if cfg.LeakDetection {
		c.leaks = leak.New(leak.Options{
			Pool:         c.name,
			Base:         conn.Started,
			Threshold:    cfg.LeakThreshold,
			ReclaimAfter: cfg.LeakReclaimAfter,
			Reclaim:      conn.Reclaim,
			StackDepth:   cfg.LeakStackDepth,
			SkipPackages: cfg.LeakSkipPackages,
			Logger:       cfg.logger,
			OnLeak:       cfg.OnLeak,
		})
	}
	c.router = newRouter(cfg, c.name, endpoints, func() *conn.Pool { return c.pool })
	c.pool = conn.New(conn.Options{
		Name:           c.name,
		Size:           cfg.PoolSize,
		MaxOverflow:    cfg.MaxOverflow,
		Timeout:        cfg.PoolTimeout,
		Recycle:        cfg.PoolRecycle,
		IdleTimeout:    cfg.PoolIdleTimeout,
		MinIdle:        cfg.PoolMinIdle,
		PrePing:        cfg.PoolPrePing,
		PingTimeout:    cfg.HealthCheckTimeout,
		CancelTimeout:  cfg.CancelTimeout,
		StatementCache: cfg.StatementCache,
		DiscardAll:     cfg.PoolReset == "discard_all",
		Echo:           cfg.EchoPool,
		Role:           len(endpoints) > 1 || cfg.TargetSessionAttrs != "any",
		OnConnect:      cfg.OnConnect,
		Logger:         cfg.logger,
		Leaks:          c.leaks,
		ReclaimAfter:   cfg.LeakReclaimAfter,
		Prober:         c.router.prober,
	}, c.router)
	register(c)
	return c, nil
}

// connect makes the endpoints of the DSN, or of the user's own connectors.
func (c *Config) connect() ([]*conn.Endpoint, error) {
	var endpoints []*conn.Endpoint
	for i, own := range c.Endpoints {
		endpoints = append(endpoints, conn.Foreign(fmt.Sprintf("endpoint-%d", i+1), own))
	}
	if len(endpoints) > 0 {
		return endpoints, nil
	}
	servers, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	dialer := &conn.Dialer{KeepAlive: c.keepAlive(), UserTimeout: c.TCPUserTimeout, CancelTimeout: c.CancelTimeout}
	for _, s := range servers {
		var e *conn.Endpoint
		if c.BaseDriver == "pq" {
			e, err = conn.Pq(s.name, s.dsn, dialer)
		} else {
			e, err = conn.Pgx(s.name, s.dsn, dialer, c.PgxConfig, c.PgxOptions...)
		}
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// OpenDB makes a sql.DB over a new pool, without connecting. What is wrong with the Config is found here.
func OpenDB(cfg *Config) (*sql.DB, error) {
	c, err := NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}

// PoolOf is the pool behind a sql.DB. It is false for a sql.DB that isn't ours, or whose driver something else wraps.
func PoolOf(db *sql.DB) (*Connector, bool) {
	d, ok := db.Driver().(*Driver)
	if !ok || d.pool == nil {
		return nil, false
	}
	return d.pool, true
}

// Connect is for database/sql.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) { return c.pool.Connect(ctx) }

// Driver is for database/sql.
func (c *Connector) Driver() driver.Driver { return &c.driver }

// Close closes the pool: free connections at once, those in use when they are given back. sql.DB.Close calls it.
func (c *Connector) Close() error {
	unregister(c)
	c.router.close()
	return c.pool.Close()
}

// Name is the pool's name in stats, logs and metrics.
func (c *Connector) Name() string { return c.name }

// Drain closes all free connections now, and each of the others when it is given back, so that from now on only new ones
// are used: after a change of a role's settings, say, or of the server behind an address.
func (c *Connector) Drain() { c.pool.Drain() }

// Health is what the probes of the endpoints have found.
func (c *Connector) Health() failover.Health { return c.router.Health() }

// CheckNow probes all endpoints now, within ctx and health_check_timeout, and returns what was found.
func (c *Connector) CheckNow(ctx context.Context) failover.Health { return c.router.CheckNow(ctx) }

// Failover says which endpoint is used, and how it came to that.
func (c *Connector) Failover() failover.Status { return c.router.Status() }

// Failback moves to the best endpoint that a probe finds usable now, without waiting for failback_after. Connections in
// use elsewhere are closed when they are given back.
func (c *Connector) Failback(ctx context.Context) error { return c.router.Failback(ctx) }

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
	if c.config.PoolSize > 0 {
		s.GovernedBy = stats.GovernedByDriver
		s.Size, s.MaxOverflow = int64(c.config.PoolSize), int64(c.config.MaxOverflow)
		s.MinIdle = int64(c.config.PoolMinIdle)
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
	c.pool.Recorder.Reset()
	c.router.ResetCounts()
	if c.leaks != nil {
		c.leaks.Reset()
	}
}

// Stats are the figures of every open pool, by name.
func Stats() []stats.Snapshot {
	var all []stats.Snapshot
	for _, c := range Pools() {
		all = append(all, c.Stats())
	}
	return all
}

var (
	_ driver.Driver        = (*Driver)(nil)
	_ driver.DriverContext = (*Driver)(nil)
	_ driver.Connector     = (*Connector)(nil)
)
