package base

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
)

// Features are a driver's connection and the optional interfaces that it has, asserted once. Their methods do with them what
// database/sql does (its ctxutil.go), so that a driver that lacks one, or has an older form of it, behaves as without us.
type Features struct {
	// Those that a caller asks itself; nil: it hasn't.
	Resetter  driver.SessionResetter
	Validator driver.Validator
	Checker   driver.NamedValueChecker

	conn     driver.Conn
	execer   driver.ExecerContext
	queryer  driver.QueryerContext
	beginner driver.ConnBeginTx
}

func featuresOf(base driver.Conn) Features {
	f := Features{conn: base}
	f.execer, _ = base.(driver.ExecerContext)
	f.queryer, _ = base.(driver.QueryerContext)
	f.beginner, _ = base.(driver.ConnBeginTx)
	f.Resetter, _ = base.(driver.SessionResetter)
	f.Validator, _ = base.(driver.Validator)
	f.Checker, _ = base.(driver.NamedValueChecker)
	return f
}

// CanExec says that a text can be executed without being prepared.
func (f *Features) CanExec() bool {
	_, legacy := f.conn.(driver.Execer) //lint:ignore SA1019 database/sql still calls it
	return legacy || f.execer != nil
}

// CanQuery says that a text can be queried without being prepared.
func (f *Features) CanQuery() bool {
	_, legacy := f.conn.(driver.Queryer) //lint:ignore SA1019 database/sql still calls it
	return legacy || f.queryer != nil
}

// Pinger is the connection as one, nil if it isn't.
func (f *Features) Pinger() driver.Pinger {
	p, _ := f.conn.(driver.Pinger)
	return p
}

// CanBeginReadOnly says that a transaction can be begun as READ ONLY.
func (f *Features) CanBeginReadOnly() bool { return f.beginner != nil }

// Exec executes a text; driver.ErrSkip: it has to be prepared.
func (f *Features) Exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if f.execer != nil {
		return f.execer.ExecContext(ctx, query, args)
	}
	legacy, ok := f.conn.(driver.Execer) //lint:ignore SA1019 database/sql still calls it
	if !ok {
		return nil, driver.ErrSkip
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	return legacy.Exec(query, values)
}

// Query queries a text; driver.ErrSkip: it has to be prepared.
func (f *Features) Query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if f.queryer != nil {
		return f.queryer.QueryContext(ctx, query, args)
	}
	legacy, ok := f.conn.(driver.Queryer) //lint:ignore SA1019 database/sql still calls it
	if !ok {
		return nil, driver.ErrSkip
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	return legacy.Query(query, values)
}

// Prepare prepares a statement.
func (f *Features) Prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if preparer, ok := f.conn.(driver.ConnPrepareContext); ok {
		return preparer.PrepareContext(ctx, query)
	}
	st, err := f.conn.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = st.Close()
		return nil, ctx.Err()
	}
	return st, err
}

// Begin begins a transaction.
func (f *Features) Begin(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if f.beginner != nil {
		return f.beginner.BeginTx(ctx, opts)
	}
	if sql.IsolationLevel(opts.Isolation) != sql.LevelDefault {
		return nil, errors.New("sql: driver does not support non-default isolation level")
	}
	if opts.ReadOnly {
		return nil, errors.New("sql: driver does not support read-only transactions")
	}
	//lint:ignore SA1019 database/sql still calls it
	tx, err := f.conn.Begin()
	if err == nil && ctx.Err() != nil {
		_ = tx.Rollback()
		return nil, ctx.Err()
	}
	return tx, err
}

// Run executes a statement of our own.
func (f *Features) Run(ctx context.Context, query string) error {
	_, err := f.Exec(ctx, query, nil)
	if !errors.Is(err, driver.ErrSkip) {
		return err
	}
	st, err := f.Prepare(ctx, query)
	if err != nil {
		return err
	}
	defer st.Close()
	_, err = StmtExec(ctx, st, nil)
	return err
}

// ask is Conn.Ask by what database/sql would call.
func (f *Features) ask(ctx context.Context, query string) ([]string, error) {
	rows, err := f.Query(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrNoRow
		}
		return nil, err
	}
	row := make([]string, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case string:
			row[i] = v
		case []byte:
			row[i] = string(v)
		}
	}
	return row, nil
}

// StmtExec executes a statement.
func StmtExec(ctx context.Context, st driver.Stmt, args []driver.NamedValue) (driver.Result, error) {
	if s, ok := st.(driver.StmtExecContext); ok {
		return s.ExecContext(ctx, args)
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 database/sql still calls it
	return st.Exec(values)
}

// StmtQuery queries a statement.
func StmtQuery(ctx context.Context, st driver.Stmt, args []driver.NamedValue) (driver.Rows, error) {
	if s, ok := st.(driver.StmtQueryContext); ok {
		return s.QueryContext(ctx, args)
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 database/sql still calls it
	return st.Query(values)
}

// unnamed turns arguments into what interfaces without a context take, if the context still holds.
func unnamed(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, a := range args {
		if a.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = a.Value
	}
	return values, ctx.Err()
}
