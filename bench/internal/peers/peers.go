// Package peers opens what managedpg is measured beside: other pools and wrappers over pgx, each without what it would log
// or trace.
package peers

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/XSAM/otelsql"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/ngrok/sqlmw"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Pgxpool is pgx's own pool through database/sql, with a limit on its connections.
func Pgxpool(dsn string, size int) (*sql.DB, error) {
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(size)
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(pooled{stdlib.GetPoolConnector(pool), pool})
	db.SetMaxIdleConns(0)
	return db, nil
}

// pooled closes the pool with the sql.DB, which is all that stdlib.OpenDBFromPool doesn't.
type pooled struct {
	driver.Connector
	pool *pgxpool.Pool
}

func (p pooled) Close() error {
	p.pool.Close()
	return nil
}

func init() { sql.Register("sqlmw", sqlmw.Driver(stdlib.GetDefaultDriver(), sqlmw.NullInterceptor{})) }

// Sqlmw is ngrok/sqlmw with an interceptor that does nothing.
func Sqlmw(dsn string) (*sql.DB, error) { return sql.Open("sqlmw", dsn) }

// Otelsql is XSAM/otelsql with a tracer and a meter that do nothing.
func Otelsql(dsn string) (*sql.DB, error) {
	return otelsql.Open("pgx", dsn, otelsql.WithTracerProvider(tracenoop.NewTracerProvider()),
		otelsql.WithMeterProvider(metricnoop.NewMeterProvider()))
}
