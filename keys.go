package managedpg

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/managedpg/managedpg/internal/dsn"
)

// key is one of managedpg's DSN keys. The table keys drives the DSN, the environment, Config.DSN and Config.Validate:
// there is no second list.
type key struct {
	name string
	// def is the default as a DSN would write it; several, where it differs, the one with several endpoints.
	def, several string
	want         string // what is accepted, for errors
	needsPool    bool   // an error without pool_size
	pgEnv        string // libpq's own environment variable, which counts after ours
	list         bool   // may repeat, and has no environment variable of ours
	set          func(*Config, string) bool
	get          func(*Config) string
}

// env is the environment variable of a key.
func (k *key) env() string { return "DB_" + strings.ToUpper(k.name) }

func (k *key) defaultFor(several bool) string {
	if several && k.several != "" {
		return k.several
	}
	return k.def
}

const (
	needsPoolSize = "pool_size with it: without pool_size database/sql governs the pool (db.SetMaxOpenConns)"
	wantDuration  = "a duration such as 30s, or a bare number of seconds"
	longest       = time.Duration(math.MaxInt64)
)

// keys is in the order in which they are read: base_driver decides how a URL is read, pool_size what else is accepted.
var keys = []*key{
	choiceKey("base_driver", func(c *Config) *string { return &c.BaseDriver }, "pgx", "pq"),
	nameKey("pool_name", func(c *Config) *string { return &c.PoolName }),
	poolSizeKey("pool_size", 10000),
	pooled(intKey("max_overflow", "10", -1, 10000, func(c *Config) *int { return &c.MaxOverflow })),
	pooled(durationKey("pool_timeout", "30s", -longest, func(c *Config) *time.Duration { return &c.PoolTimeout })),
	durationKey("pool_recycle", "1h", 0, func(c *Config) *time.Duration { return &c.PoolRecycle }),
	pooled(durationKey("pool_idle_timeout", "0", 0, func(c *Config) *time.Duration { return &c.PoolIdleTimeout })),
	pooled(intKey("pool_min_idle", "0", 0, 10000, func(c *Config) *int { return &c.PoolMinIdle })),
	boolKey("pool_pre_ping", "true", func(c *Config) *bool { return &c.PoolPrePing }),
	pooled(intKey("statement_cache", "128", 0, 1<<20, func(c *Config) *int { return &c.StatementCache })),
	choiceKey("pool_reset", func(c *Config) *string { return &c.PoolReset }, "none", "discard_all"),
	durationKey("cancel_timeout", "250ms", 0, func(c *Config) *time.Duration { return &c.CancelTimeout }),
	boolKey("echo_pool", "false", func(c *Config) *bool { return &c.EchoPool }),
	boolKey("leak_detection", "true", func(c *Config) *bool { return &c.LeakDetection }),
	durationKey("leak_threshold", "5m", 1, func(c *Config) *time.Duration { return &c.LeakThreshold }),
	durationKey("leak_reclaim_after", "0", 0, func(c *Config) *time.Duration { return &c.LeakReclaimAfter }),
	intKey("leak_stack_depth", "16", 0, 1000, func(c *Config) *int { return &c.LeakStackDepth }),
	boolKey("health_check", "true", func(c *Config) *bool { return &c.HealthCheck }),
	several("5s", durationKey("health_check_interval", "1m", 1, func(c *Config) *time.Duration { return &c.HealthCheckInterval })),
	durationKey("health_check_timeout", "5s", 1, func(c *Config) *time.Duration { return &c.HealthCheckTimeout }),
	boolKey("fencing", "true", func(c *Config) *bool { return &c.Fencing }),
	failoverURLsKey("failover_urls"),
	boolKey("failover", "true", func(c *Config) *bool { return &c.Failover }),
	durationKey("failover_timeout", "30s", 0, func(c *Config) *time.Duration { return &c.FailoverTimeout }),
	intKey("failover_retry_attempts", "0", 0, 1<<20, func(c *Config) *int { return &c.FailoverRetryAttempts }),
	durationKey("failover_retry_delay", "1s", 0, func(c *Config) *time.Duration { return &c.FailoverRetryDelay }),
	boolKey("failback", "true", func(c *Config) *bool { return &c.Failback }),
	intKey("failback_after", "3", 1, 1<<20, func(c *Config) *int { return &c.FailbackAfter }),
	several("read-write", libpq("PGTARGETSESSIONATTRS", choiceKey("target_session_attrs",
		func(c *Config) *string { return &c.TargetSessionAttrs },
		"any", "read-write", "read-only", "primary", "standby", "prefer-standby"))),
	libpq("PGLOADBALANCEHOSTS", choiceKey("load_balance_hosts", func(c *Config) *string { return &c.LoadBalanceHosts }, "disable", "random")),
	durationKey("max_replication_lag", "0", 0, func(c *Config) *time.Duration { return &c.MaxReplicationLag }),
	pooled(boolKey("standby_reads", "false", func(c *Config) *bool { return &c.StandbyReads })),
	tcpUserTimeoutKey("tcp_user_timeout"),
	boolKey("keepalives", "true", func(c *Config) *bool { return &c.Keepalives }),
	durationKey("keepalives_idle", "0", 0, func(c *Config) *time.Duration { return &c.KeepalivesIdle }),
	durationKey("keepalives_interval", "0", 0, func(c *Config) *time.Duration { return &c.KeepalivesInterval }),
	intKey("keepalives_count", "0", 0, 127, func(c *Config) *int { return &c.KeepalivesCount }),
	libpq("PGCONNECT_TIMEOUT", connectTimeoutKey("connect_timeout")),
}

// reader knows managedpg's keys from the base drivers'.
var reader = func() (r dsn.Reader) {
	for _, k := range keys {
		r.Own = append(r.Own, k.name)
		if k.list {
			r.Lists = append(r.Lists, k.name)
		}
	}
	return r
}()

// keyNamed is the key of that name, or nil when it isn't ours.
func keyNamed(name string) *key {
	if i := slices.IndexFunc(keys, func(k *key) bool { return k.name == name }); i >= 0 {
		return keys[i]
	}
	return nil
}

func pooled(k *key) *key                 { k.needsPool = true; return k }
func several(def string, k *key) *key    { k.several = def; return k }
func libpq(variable string, k *key) *key { k.pgEnv = variable; return k }

func intKey(name, def string, least, most int, field func(*Config) *int) *key {
	return &key{
		name: name, def: def,
		want: fmt.Sprintf("a whole number from %d to %d", least, most),
		get:  func(c *Config) string { return strconv.Itoa(*field(c)) },
		set: func(c *Config, v string) bool {
			n, err := strconv.Atoi(v)
			if err != nil || n < least || n > most {
				return false
			}
			*field(c) = n
			return true
		},
	}
}

// poolSizeKey is an intKey with a word for "absent", so that a DSN can say it where DB_POOL_SIZE is set.
func poolSizeKey(name string, most int) *key {
	k := intKey(name, "none", 1, most, func(c *Config) *int { return &c.PoolSize })
	k.want += ", or none (database/sql governs the pool)"
	number, set := k.get, k.set
	k.get = func(c *Config) string {
		if c.PoolSize == 0 {
			return "none"
		}
		return number(c)
	}
	k.set = func(c *Config, v string) bool {
		if v == "none" {
			c.PoolSize = 0
			return true
		}
		return set(c, v)
	}
	return k
}

func durationKey(name, def string, least time.Duration, field func(*Config) *time.Duration) *key {
	want := wantDuration
	switch least {
	case 0:
		want += ", not negative"
	case 1:
		want += ", above 0"
	}
	return &key{
		name: name, def: def, want: want,
		get: func(c *Config) string { return formatDuration(*field(c)) },
		set: func(c *Config, v string) bool {
			d, ok := parseDuration(v, "s")
			if !ok || d < least {
				return false
			}
			*field(c) = d
			return true
		},
	}
}

// tcpUserTimeoutKey reads a bare number as libpq does: in milliseconds.
func tcpUserTimeoutKey(name string) *key {
	k := durationKey(name, "0", 0, func(c *Config) *time.Duration { return &c.TCPUserTimeout })
	k.want = "a duration such as 30s, or (as in libpq) a bare number of milliseconds, not negative"
	k.set = func(c *Config, v string) bool {
		d, ok := parseDuration(v, "ms")
		if !ok || d < 0 {
			return false
		}
		c.TCPUserTimeout = d
		return true
	}
	return k
}

// connectTimeoutKey reads a negative number as libpq does: no limit.
func connectTimeoutKey(name string) *key {
	k := durationKey(name, "5s", -longest, func(c *Config) *time.Duration { return &c.ConnectTimeout })
	set := k.set
	k.set = func(c *Config, v string) bool {
		ok := set(c, v)
		c.ConnectTimeout = max(c.ConnectTimeout, 0)
		return ok
	}
	return k
}

func boolKey(name, def string, field func(*Config) *bool) *key {
	return &key{
		name: name, def: def,
		want: "true or false (1, on, yes, 0, off, no)",
		get:  func(c *Config) string { return strconv.FormatBool(*field(c)) },
		set: func(c *Config, v string) bool {
			switch strings.ToLower(v) {
			case "true", "t", "yes", "y", "on", "1":
				*field(c) = true
			case "false", "f", "no", "n", "off", "0":
				*field(c) = false
			default:
				return false
			}
			return true
		},
	}
}

// choiceKey takes one of some words; the first is the default.
func choiceKey(name string, field func(*Config) *string, words ...string) *key {
	return &key{
		name: name, def: words[0],
		want: strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1],
		get:  func(c *Config) string { return *field(c) },
		set: func(c *Config, v string) bool {
			if !slices.Contains(words, v) {
				return false
			}
			*field(c) = v
			return true
		},
	}
}

// longestName leaves room for the longest host, port and database: it is in every record, metric and error.
const longestName = 500

func nameKey(name string, field func(*Config) *string) *key {
	return &key{
		name: name,
		want: fmt.Sprintf("a name without control characters, of %d bytes at most", longestName),
		get:  func(c *Config) string { return *field(c) },
		set: func(c *Config, v string) bool {
			if v == "" || len(v) > longestName || strings.ContainsFunc(v, unicode.IsControl) {
				return false
			}
			*field(c) = v
			return true
		},
	}
}

func failoverURLsKey(name string) *key {
	return &key{
		name: name, list: true,
		want: "DSNs, separated by commas",
		get:  func(*Config) string { return "" },
		set: func(c *Config, v string) bool {
			c.FailoverURLs = append(c.FailoverURLs, dsn.SplitList(v)...)
			return true
		},
	}
}

// parseDuration reads Go's syntax, or a bare number in the unit.
func parseDuration(v, unit string) (time.Duration, bool) {
	if v != "" && strings.Trim(v, "+-.0123456789") == "" {
		v += unit
	}
	d, err := time.ParseDuration(v)
	return d, err == nil
}

// formatDuration is d.String without its trailing zeros: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
