package managedpg

import (
	"cmp"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"

	"github.com/managedpg/managedpg/driver"
	"github.com/managedpg/managedpg/internal/base"
	internalconn "github.com/managedpg/managedpg/internal/conn"
	"github.com/managedpg/managedpg/internal/dsn"
	internalfailover "github.com/managedpg/managedpg/internal/failover"
	"github.com/managedpg/managedpg/internal/usercode"
	"github.com/managedpg/managedpg/internal/wire"
	"github.com/managedpg/managedpg/leak"
)

// OpenDB is sql.Open for a Config, which is copied. Like sql.Open it doesn't connect; what is wrong with the Config is found
// here. With PoolSize it also raises database/sql's limit of idle connections, which is 2, as theirs cost nothing then.
func OpenDB(cfg *Config) (*sql.DB, error) {
	cfg, servers, err := cfg.resolved()
	if err != nil {
		return nil, err
	}
	c, err := cfg.connector(servers)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	if cfg.PoolSize > 0 {
		db.SetMaxIdleConns(cfg.PoolSize + max(cfg.MaxOverflow, 0))
	}
	return db, nil
}

// newConnector is what sql.Open makes of a DSN.
func newConnector(dsn string) (*driver.Connector, error) {
	cfg, servers, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	return cfg.connector(servers)
}

// connector makes the pool of a Config that is resolved.
func (c *Config) connector(servers []dsn.Endpoint) (*driver.Connector, error) {
	endpoints, err := c.connect(servers)
	if err != nil {
		return nil, fmt.Errorf("managedpg: %w", err)
	}
	o := driver.Options{
		Name:      cmp.Or(c.PoolName, endpoints[0].Name),
		Endpoints: endpoints,
		Probed:    c.HealthCheck && (len(c.Endpoints) == 0 || c.base == nil), // of a parsed Config true may be a default
		Logger:    c.logger,
		FromDSN:   newConnector,
		Reads:     c.StandbyReads,
		Pool: internalconn.Options{
			Size:           c.PoolSize,
			MaxOverflow:    c.MaxOverflow,
			Timeout:        c.PoolTimeout,
			Recycle:        c.PoolRecycle,
			IdleTimeout:    c.PoolIdleTimeout,
			MinIdle:        c.PoolMinIdle,
			PrePing:        c.PoolPrePing,
			PingTimeout:    c.HealthCheckTimeout,
			CancelTimeout:  c.CancelTimeout,
			StatementCache: c.StatementCache,
			DiscardAll:     c.PoolReset == "discard_all",
			Echo:           c.EchoPool,
			Role:           len(endpoints) > 1 || c.TargetSessionAttrs != "any",
			OnConnect:      c.OnConnect,
		},
		Failover: internalfailover.Options{
			TargetSessionAttrs:    c.TargetSessionAttrs,
			Fencing:               c.Fencing,
			Failover:              c.Failover,
			Random:                c.LoadBalanceHosts == "random",
			MaxReplicationLag:     c.MaxReplicationLag,
			Failback:              c.Failback,
			FailbackAfter:         c.FailbackAfter,
			HealthCheck:           c.HealthCheck,
			HealthCheckInterval:   c.HealthCheckInterval,
			HealthCheckTimeout:    c.HealthCheckTimeout,
			FailoverTimeout:       c.FailoverTimeout,
			FailoverRetryDelay:    c.FailoverRetryDelay,
			FailoverRetryAttempts: c.FailoverRetryAttempts,
			ConnectTimeout:        c.ConnectTimeout,
			OnFailover:            c.OnFailover,
		},
	}
	if c.LeakDetection {
		o.Leaks = &leak.Options{
			Threshold:    c.LeakThreshold,
			ReclaimAfter: c.LeakReclaimAfter,
			StackDepth:   c.LeakStackDepth,
			SkipPackages: c.LeakSkipPackages,
			OnLeak:       c.OnLeak,
		}
	}
	for _, k := range keys {
		if c.PoolSize == 0 && k.needsPool || slices.Contains(unshown, k.name) {
			continue
		}
		if value := k.get(c); value != "" {
			o.Settings = append(o.Settings, driver.Setting{Key: k.name, Value: value})
		}
	}
	return driver.New(o), nil
}

// unshown are the keys that the page leaves out: the pool's name stands there anyway, and the servers' DSNs hold passwords.
var unshown = []string{"pool_name", "failover_urls"}

// connect makes the endpoints of the servers, or of the user's own connectors.
func (c *Config) connect(servers []dsn.Endpoint) ([]*base.Endpoint, error) {
	var endpoints []*base.Endpoint
	for i, own := range c.Endpoints {
		endpoints = append(endpoints, base.Own(fmt.Sprintf("endpoint-%d", i+1), own))
	}
	if len(endpoints) > 0 {
		return endpoints, nil
	}
	options := base.Options{
		Dialer:        wire.Dialer{KeepAlive: c.keepAlive(), UserTimeout: c.TCPUserTimeout},
		CancelTimeout: c.CancelTimeout,
	}
	for _, s := range servers {
		var e *base.Endpoint
		var err error
		if c.BaseDriver == "pq" {
			e, err = base.Pq(s.Name, s.DSN, options)
		} else {
			e, err = base.Pgx(s.Name, s.DSN, options, c.PgxConfig, c.PgxOptions...)
		}
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// keepAlive is libpq's keepalives for a net.Dialer. Its zeros are Go's defaults, as with the bare drivers.
func (c *Config) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{
		Enable: c.Keepalives, Idle: c.KeepalivesIdle, Interval: c.KeepalivesInterval, Count: c.KeepalivesCount,
	}
}

var defaultLogger atomic.Pointer[slog.Logger]

// SetLogger sets where pools log whose Config has no Logger. The default is slog.Default(), also after SetLogger(nil).
func SetLogger(l *slog.Logger) { defaultLogger.Store(l) }

// logger is where a pool logs now.
func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return usercode.Logger(c.Logger)
	}
	if l := defaultLogger.Load(); l != nil {
		return usercode.Logger(l)
	}
	return usercode.Logger(slog.Default())
}
