package conn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
)

// features are the optional interfaces that a base connection has, asserted once. Their methods do with them what
// database/sql does (its ctxutil.go), so that a base that lacks one, or has an older form of it, behaves as without us.
type features struct {
	execer  driver.ExecerContext
	queryer driver.QueryerContext
	//lint:ignore SA1019 database/sql still calls it
	legacyExecer driver.Execer
	//lint:ignore SA1019 database/sql still calls it
	legacyQueryer driver.Queryer
	preparer      driver.ConnPrepareContext
	beginner      driver.ConnBeginTx
	pinger        driver.Pinger
	resetter      driver.SessionResetter
	validator     driver.Validator
	checker       driver.NamedValueChecker
}

func featuresOf(base driver.Conn) features {
	var f features
	f.execer, _ = base.(driver.ExecerContext)
	f.queryer, _ = base.(driver.QueryerContext)
	//lint:ignore SA1019 see above
	f.legacyExecer, _ = base.(driver.Execer)
	//lint:ignore SA1019 see above
	f.legacyQueryer, _ = base.(driver.Queryer)
	f.preparer, _ = base.(driver.ConnPrepareContext)
	f.beginner, _ = base.(driver.ConnBeginTx)
	f.pinger, _ = base.(driver.Pinger)
	f.resetter, _ = base.(driver.SessionResetter)
	f.validator, _ = base.(driver.Validator)
	f.checker, _ = base.(driver.NamedValueChecker)
	return f
}

func (f *features) canExec() bool  { return f.execer != nil || f.legacyExecer != nil }
func (f *features) canQuery() bool { return f.queryer != nil || f.legacyQueryer != nil }

func (f *features) exec(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if f.execer != nil {
		return f.execer.ExecContext(ctx, query, args)
	}
	if f.legacyExecer == nil {
		return nil, driver.ErrSkip
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	return f.legacyExecer.Exec(query, values)
}

func (f *features) query(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if f.queryer != nil {
		return f.queryer.QueryContext(ctx, query, args)
	}
	if f.legacyQueryer == nil {
		return nil, driver.ErrSkip
	}
	values, err := unnamed(ctx, args)
	if err != nil {
		return nil, err
	}
	return f.legacyQueryer.Query(query, values)
}

func (f *features) prepare(ctx context.Context, base driver.Conn, query string) (driver.Stmt, error) {
	if f.preparer != nil {
		return f.preparer.PrepareContext(ctx, query)
	}
	st, err := base.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = st.Close()
		return nil, ctx.Err()
	}
	return st, err
}

func (f *features) begin(ctx context.Context, base driver.Conn, opts driver.TxOptions) (driver.Tx, error) {
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
	tx, err := base.Begin()
	if err == nil && ctx.Err() != nil {
		_ = tx.Rollback()
		return nil, ctx.Err()
	}
	return tx, err
}

func stmtExec(ctx context.Context, st driver.Stmt, args []driver.NamedValue) (driver.Result, error) {
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

func stmtQuery(ctx context.Context, st driver.Stmt, args []driver.NamedValue) (driver.Rows, error) {
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
