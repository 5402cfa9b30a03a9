// Package driver turns a DSN into a wired pool: Config, Driver, Connector. Nothing here touches a query.
package driver

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/leak"
)

// Config is what a DSN says, key by key, and what a DSN can't say.
type Config struct {
	BaseDriver            string
	PoolName              string
	PoolSize              int
	MaxOverflow           int
	PoolTimeout           time.Duration
	PoolRecycle           time.Duration
	PoolIdleTimeout       time.Duration
	PoolMinIdle           int
	PoolPrePing           bool
	StatementCache        int
	PoolReset             string
	EchoPool              bool
	LeakDetection         bool
	LeakThreshold         time.Duration
	LeakReclaimAfter      time.Duration
	LeakStackDepth        int
	HealthCheck           bool
	HealthCheckInterval   time.Duration
	HealthCheckTimeout    time.Duration
	Fencing               bool
	FailoverURLs          []string
	Failover              bool
	FailoverTimeout       time.Duration
	FailoverRetryAttempts int
	FailoverRetryDelay    time.Duration
	Failback              bool
	FailbackAfter         int
	TargetSessionAttrs    string
	TCPUserTimeout        time.Duration
	ConnectTimeout        time.Duration

	PgxConfig  func(*pgx.ConnConfig) error
	PgxOptions []stdlib.OptionOpenDB
	OnConnect  func(context.Context, driver.Conn) error
	Endpoints  []driver.Connector
	OnLeak     func(leak.Report)
	OnFailover func(failover.Event)
	Logger     *slog.Logger
}
