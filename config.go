package managedpg

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/dsn"
	"github.com/managedpg/managedpg/leak"
)

// Config is what a DSN says, key by key, and what a DSN can't say.
//
// Start from [ParseDSN], which fills in the environment and the defaults, and change fields:
//
//	cfg, err := managedpg.ParseDSN(os.Getenv("DATABASE_URL"))
//	...
//	cfg.OnLeak = func(r leak.Report) { ... }
//	db, err := managedpg.OpenDB(cfg)
//
// A Config that was not made by ParseDSN knows no server. It is of use only with Endpoints; its booleans are then false
// unless set, and a field whose zero value makes no sense (HealthCheckTimeout, FailbackAfter, ...) has its default.
//
// A Config holds passwords. However it is printed or logged, it shows none; DSN and FailoverURLs do. Each field's
// DSN key is its name in snake_case.
type Config struct { // More than 15 fields: one for each DSN key.
	// BaseDriver is the driver underneath: "pgx" (default) or "pq".
	BaseDriver string
	// PoolName is the pool's name in stats, logs and metrics. Default: host:port/dbname of the first endpoint. Two
	// pools of the same name get #2, #3.
	PoolName string

	// PoolSize is how many connections the pool keeps, 1 to 10000. When it is set the driver governs the pool; 0 means
	// absent (pool_size=none in a DSN): database/sql governs, by SetMaxOpenConns and its siblings. Default: 0.
	PoolSize int
	// MaxOverflow is how many connections are allowed beyond PoolSize; they are closed on return when PoolSize are
	// free. -1: no limit. Default: 10. Needs PoolSize.
	MaxOverflow int
	// PoolTimeout is how long a checkout waits for a connection. 0: fail at once; negative: its context alone decides.
	// Default: 30s. Needs PoolSize.
	PoolTimeout time.Duration
	// PoolRecycle is the age at which a connection is closed at check-in, less a random tenth, so that they don't all
	// go at once. 0: never. Default: 1h.
	PoolRecycle time.Duration
	// PoolIdleTimeout closes a free connection beyond PoolMinIdle that was not used for so long. 0: never (default).
	// Needs PoolSize.
	PoolIdleTimeout time.Duration
	// PoolMinIdle is how many connections are opened ahead and kept ready, at most PoolSize. Default: 0. Needs PoolSize.
	PoolMinIdle int
	// PoolPrePing looks at a connection before it is handed out again: a peek at its socket without a round trip, and a
	// ping when it was idle for longer than a second. Default: true.
	PoolPrePing bool
	// StatementCache is how many prepared statements each connection keeps, the least recently used going first. 0:
	// none. Default: 128. Needs PoolSize.
	StatementCache int
	// PoolReset is "none" (default), or "discard_all": DISCARD ALL before a connection is handed to its next user, and OnConnect
	// again. A connection on which pgx's AfterConnect has run (PgxOptions, PgxConfig) is closed instead.
	PoolReset string
	// CancelTimeout is how long a call whose context has ended waits for the server's answer to its cancel request, before its
	// connection is given up. 0: it is given up at once. Default: 250ms.
	CancelTimeout time.Duration
	// EchoPool logs every checkout, check-in, dial and close at debug level. Default: false.
	EchoPool bool

	// LeakDetection watches for checkouts that are held too long. Default: true.
	LeakDetection bool
	// LeakThreshold is how long a checkout may be held before it is reported; above 0. Default: 5m.
	LeakThreshold time.Duration
	// LeakReclaimAfter takes a checkout back by force that was held for longer and has no call in progress. It needs
	// LeakDetection. 0: never (default).
	LeakReclaimAfter time.Duration
	// LeakStackDepth is how many frames of a checkout's stack are walked, database/sql's included, at most 1000.
	// 0: none. Default: 16.
	LeakStackDepth int

	// HealthCheck probes the endpoints in the background. Default: true.
	HealthCheck bool
	// HealthCheckInterval is the time between two probes of an endpoint; above 0. Default: 60s, or 5s with several
	// endpoints.
	HealthCheckInterval time.Duration
	// HealthCheckTimeout is the limit of a probe, and of a pre-ping; above 0. Default: 5s.
	HealthCheckTimeout time.Duration
	// Fencing keeps from writing to a server once another one of the same system is on a newer timeline. Default: true.
	Fencing bool

	// FailoverURLs are further DSNs, in order of preference after the main one. Each stands alone: it inherits neither
	// user nor password nor anything else from the main DSN, and holds no key of managedpg's. They may hold passwords.
	// Who adds some to a Config of a single endpoint sees to TargetSessionAttrs and HealthCheckInterval too: ParseDSN
	// has settled their defaults already. Default: none.
	FailoverURLs []string
	// Failover allows any but the first endpoint to be used. Default: true.
	Failover bool
	// FailoverTimeout is how long a checkout waits for a usable endpoint, when there are several. Default: 30s.
	FailoverTimeout time.Duration
	// FailoverRetryAttempts is how many rounds over all endpoints a checkout makes before it fails earlier than
	// FailoverTimeout. 0: as many as fit (default).
	FailoverRetryAttempts int
	// FailoverRetryDelay is the wait between two rounds, jittered. Default: 1s.
	FailoverRetryDelay time.Duration
	// Failback returns to a better endpoint once it is healthy again. Default: true.
	Failback bool
	// FailbackAfter is how many good probes in a row that takes, at least 1. Default: 3.
	FailbackAfter int

	// TargetSessionAttrs is libpq's: "any", "read-write", "read-only", "primary", "standby" or "prefer-standby";
	// enforced by managedpg across the endpoints. libpq's PGTARGETSESSIONATTRS counts after DB_TARGET_SESSION_ATTRS.
	// Default: any, or read-write with several endpoints.
	TargetSessionAttrs string
	// LoadBalanceHosts is libpq's: "disable" (default), or "random", which spreads the pool's connections over all usable endpoints, and
	// addresses of a name, that are as fit as the best one. A new one goes where the pool has fewest, at random among equals; one
	// that comes back gets its share by connections that are closed at check-in, a few at a time. Where a writer is wanted
	// (read-write, primary) it is always one server. libpq's PGLOADBALANCEHOSTS counts after DB_LOAD_BALANCE_HOSTS.
	LoadBalanceHosts string
	// MaxReplicationLag is how far behind a standby's replay may be, as its probes see it (HealthCheck). One that is farther behind is
	// used only if no other standby is usable, and with prefer-standby not before the primary. 0: no limit (default).
	MaxReplicationLag time.Duration
	// StandbyReads puts a second pool beside the first, named PoolName/reads, of the same limits: its connections lead to standbys, spread as
	// with LoadBalanceHosts "random" and by MaxReplicationLag, and to the primary while there is no standby; nothing can be written
	// on them. Checkouts whose context comes from [ReadOnly] go there, and transactions begun with sql.TxOptions.ReadOnly. Default:
	// false. Needs PoolSize.
	StandbyReads bool
	// TCPUserTimeout is libpq's: how long sent data may stay unacknowledged before the system gives the connection up,
	// where it can. As in libpq a bare number in a DSN is in milliseconds. 0: the system's default (default).
	TCPUserTimeout time.Duration
	// Keepalives is libpq's: TCP keepalive probes on the connections. Default: true.
	Keepalives bool
	// KeepalivesIdle is libpq's: the quiet time before the first keepalive probe, to the second. 0: Go's default, 15s
	// (default).
	KeepalivesIdle time.Duration
	// KeepalivesInterval is libpq's: the time between two unanswered keepalive probes, to the second. 0: Go's default,
	// 15s (default).
	KeepalivesInterval time.Duration
	// KeepalivesCount is libpq's: how many keepalive probes may stay unanswered. 0: Go's default, 9 (default).
	KeepalivesCount int
	// ConnectTimeout is libpq's, but for having a default: the limit of a dial to one endpoint, from the first packet
	// to the server's readiness. The time of hooks (OnConnect, and pgx's) doesn't count, of which each has a minute. 0 or negative: none. libpq's PGCONNECT_TIMEOUT counts after DB_CONNECT_TIMEOUT.
	// Default: 5s.
	ConnectTimeout time.Duration

	// PgxConfig changes pgx's own configuration of each endpoint before it is used (cloud dialers, IAM tokens, tracers,
	// TLS). managedpg's dial is put around its DialFunc. For pgx only.
	PgxConfig func(*pgx.ConnConfig) error
	// PgxOptions are pgx's options for its database/sql side. Their hooks have their caller's time, and what they return says
	// nothing of the server. Probes of the server run OptionBeforeConnect too, and no others. For pgx only.
	PgxOptions []stdlib.OptionOpenDB
	// OnConnect is called with each new connection of the base driver before its first use, and again after a reset. It has its
	// caller's time, and its error is the caller's and says nothing of the server.
	OnConnect func(context.Context, driver.Conn) error
	// Endpoints are connectors of the user's own, in order of preference, in place of those of the DSN.
	Endpoints []driver.Connector
	// LeakSkipPackages are import paths of packages, subpackages included, that check connections out on behalf of others:
	// a report's caller is the first frame outside them. database/sql, managedpg, sqlx, ent, GORM, bun and other wrappers of
	// database/sql are skipped already. Default: none.
	LeakSkipPackages []string
	// OnLeak is called with each leak found.
	OnLeak func(leak.Report)
	// OnFailover is called with each failover and failback.
	OnFailover func(failover.Event)
	// Logger is where the pool logs. Default: the one of managedpg.SetLogger.
	Logger *slog.Logger

	// base is what is left of the DSN for the base driver; nil when ParseDSN didn't make this Config. A pointer, so
	// that not even a %v of a struct around a Config prints its password.
	base *dsn.Settings
}

// Validate says what is wrong with the Config, if anything: a value out of range, two that contradict each other, or a
// DSN that the base driver refuses. OpenDB calls it. An error never shows a password.
func (c *Config) Validate() error {
	_, _, err := c.resolved()
	return err
}

// check is Validate without the DSNs. origin says where a key's value comes from: its name, or an environment variable.
func (c *Config) check(origin func(key string) string) error {
	if c.base == nil && len(c.Endpoints) == 0 {
		return errors.New("a Config without a DSN and without Endpoints: start from ParseDSN and change fields")
	}
	var scratch Config
	for _, k := range keys {
		v := k.get(c)
		unset := c.base == nil && (v == "" || v == "0") // see resolved
		if !unset && !k.list && !k.set(&scratch, v) {
			return dsn.BadValue(origin(k.name), v, k.want)
		}
		if k.needsPool && c.PoolSize == 0 && v != k.def && v != "0" {
			return dsn.BadValue(origin(k.name), v, needsPoolSize)
		}
	}
	if c.PoolSize > 0 && c.PoolMinIdle > c.PoolSize {
		return dsn.BadValue(origin("pool_min_idle"), fmt.Sprint(c.PoolMinIdle), fmt.Sprintf("at most pool_size (%d)", c.PoolSize))
	}
	if c.LeakReclaimAfter > 0 && !c.LeakDetection {
		return dsn.BadValue(origin("leak_reclaim_after"), formatDuration(c.LeakReclaimAfter), "leak_detection=true with it, or 0")
	}
	if c.BaseDriver == "pq" && len(c.Endpoints) == 0 && (c.PgxConfig != nil || c.PgxOptions != nil) {
		return errors.New("PgxConfig and PgxOptions are for base_driver=pgx, and this is base_driver=pq")
	}
	for i, e := range c.Endpoints {
		if e == nil {
			//lint:ignore ST1005 it is a field's name
			return fmt.Errorf("Endpoints[%d] is nil", i)
		}
	}
	return nil
}

// resolved is a validated copy in which fields whose zero value makes no sense have their default, and the servers that its DSNs
// lead to. Only a Config that was not made by ParseDSN has such fields.
func (c *Config) resolved() (*Config, []dsn.Endpoint, error) {
	err := c.check(func(key string) string { return key })
	var servers []dsn.Endpoint
	if err == nil && len(c.Endpoints) == 0 {
		servers, err = c.endpoints()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("managedpg: %w", err)
	}
	r := *c
	var scratch Config
	for _, k := range keys {
		if !k.set(&scratch, k.get(c)) {
			k.set(&r, k.defaultFor(len(c.Endpoints) > 1))
		}
	}
	return &r, servers, nil
}

// DSN gives a DSN from which [ParseDSN] makes this Config again, but for the fields that a DSN can't express. It names
// every key, so that it means the same whatever DB_ variables are set. It holds the passwords: see String.
func (c *Config) DSN() string {
	var s dsn.Settings
	if c.base != nil {
		s = append(s, *c.base...)
	}
	for _, u := range c.FailoverURLs {
		s = append(s, dsn.Setting{Key: "failover_urls", Value: u})
	}
	for _, k := range keys {
		if k.list || k.needsPool && c.PoolSize == 0 {
			continue
		}
		if v := k.get(c); v != "" {
			s = append(s, dsn.Setting{Key: k.name, Value: v})
		}
	}
	return s.String()
}

// String gives the DSN for a reader: without passwords, and without the keys that have their default.
func (c Config) String() string {
	var s dsn.Settings
	if c.base != nil {
		s = c.base.Redacted()
	}
	for _, u := range c.FailoverURLs {
		further, err := reader.Split(u, c.BaseDriver == "pq")
		if err != nil {
			further = dsn.Settings{{Key: "dsn", Value: dsn.Hidden}}
		}
		s = append(s, dsn.Setting{Key: "failover_urls", Value: further.Redacted().String()})
	}
	for _, k := range keys {
		if v := k.get(&c); !k.list && v != "" && v != k.def && (!k.needsPool || c.PoolSize > 0) {
			s = append(s, dsn.Setting{Key: k.name, Value: v})
		}
	}
	return s.String()
}

// Format prints String, whatever the verb, so that no password is ever printed.
func (c Config) Format(f fmt.State, verb rune) {
	if verb == 'q' {
		fmt.Fprintf(f, "%q", c.String())
		return
	}
	io.WriteString(f, c.String())
}

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }
