package pgtest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// adminLimit bounds each administrative call, so that one on a frozen server fails and doesn't hang.
const adminLimit = 10 * time.Second

// adminName is the application_name by which the package's own sessions are told from the clients'.
const adminName = "pgtest"

// Exec runs statements one after the other as superuser in database postgres, each in a transaction of its own.
func (c *Cluster) Exec(sql ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	conn, err := c.admin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, s := range sql {
		if _, err := conn.Exec(ctx, s).ReadAll(); err != nil {
			return fmt.Errorf("pgtest: %s: %w", s, err)
		}
	}
	return nil
}

// QueryString runs a query as superuser in database postgres and gives the first column of its first row as PostgreSQL
// writes it, empty for null and for no row.
func (c *Cluster) QueryString(sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	return c.queryString(ctx, sql)
}

func (c *Cluster) queryString(ctx context.Context, sql string) (string, error) {
	conn, err := c.admin(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	return firstValue(ctx, conn, sql)
}

func firstValue(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("pgtest: %s: %w", sql, err)
	}
	if len(results) == 0 || len(results[0].Rows) == 0 || len(results[0].Rows[0]) == 0 {
		return "", nil
	}
	return string(results[0].Rows[0][0]), nil
}

// Backends counts the clients' sessions, in the named databases or in all.
func (c *Cluster) Backends(db ...string) (int, error) {
	n, err := c.QueryString("SELECT count(*) FROM pg_stat_activity WHERE " + clients(db))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(n)
}

// TerminateBackends ends the clients' sessions with 57P01, in the named databases or in all, and returns when they are
// gone. It says how many there were.
func (c *Cluster) TerminateBackends(db ...string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminLimit)
	defer cancel()
	conn, err := c.admin(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	// The wait is for each session by itself, so that clients which connect again don't prolong it.
	ended, err := firstValue(ctx, conn, fmt.Sprintf("SELECT count(pg_terminate_backend(pid, %d)) FROM pg_stat_activity WHERE %s",
		adminLimit.Milliseconds(), clients(db)))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(ended)
}

// clients is the condition that picks the clients' sessions out of pg_stat_activity.
func clients(db []string) string {
	where := "backend_type = 'client backend' AND application_name <> '" + adminName + "'"
	if len(db) > 0 {
		where += " AND datname IN (" + quoteAll(db) + ")"
	}
	return where
}

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = "'" + strings.ReplaceAll(name, "'", "''") + "'"
	}
	return strings.Join(quoted, ", ")
}

// admin connects over the Unix socket, which no HBA option closes to it.
func (c *Cluster) admin(ctx context.Context) (*pgconn.PgConn, error) {
	config, err := pgx.ParseConfig(fmt.Sprintf(
		"host=%s port=%d user=postgres dbname=postgres sslmode=disable application_name=%s", c.dir, c.port, adminName))
	if err != nil {
		return nil, err
	}
	return pgconn.ConnectConfig(ctx, &config.Config)
}
