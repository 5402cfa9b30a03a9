package base

import (
	"context"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/managedpg/managedpg/internal/wire"
)

func (c *pgxConn) Prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if c.Closed() {
		return nil, driver.ErrBadConn
	}
	sd, err := c.conn.Conn().Prepare(ctx, query, query)
	if err != nil {
		return nil, err
	}
	return &pgxStmt{c.conn, sd}, nil
}

// pgxStmt is what stdlib's Stmt is, but for its count of references: that one keeps an entry for each statement until it
// is closed, with a round trip, even when the server has forgotten it. A cache of ours counts for itself.
type pgxStmt struct {
	conn *stdlib.Conn
	sd   *pgconn.StatementDescription
}

func (s *pgxStmt) NumInput() int { return len(s.sd.ParamOIDs) }

func (s *pgxStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.sd.SQL, args)
}

func (s *pgxStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.sd.SQL, args)
}

func (s *pgxStmt) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), wire.CloseLimit)
	defer cancel()
	return s.conn.Conn().Deallocate(ctx, s.sd.SQL)
}

var errNeedsContext = errors.New("managedpg: a statement of pgx's is executed with a context")

func (s *pgxStmt) Exec([]driver.Value) (driver.Result, error) { return nil, errNeedsContext }
func (s *pgxStmt) Query([]driver.Value) (driver.Rows, error)  { return nil, errNeedsContext }
