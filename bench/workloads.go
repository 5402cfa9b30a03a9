package main

import (
	"context"
	"database/sql"
)

// exec runs a text without arguments.
func exec(text string) workload {
	return workload{name: "Exec", start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		return func() error {
			_, err := db.ExecContext(ctx, text)
			return err
		}, nil, nil
	}}
}

type requestKey struct{}

// execCancellable is exec with a context of the shape that net/http gives a request: it can be cancelled, and carries values.
func execCancellable(text string) workload {
	return workload{name: "Exec, cancellable", start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		ctx = context.WithValue(ctx, requestKey{}, "value")
		return func() error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			_, err := db.ExecContext(ctx, text)
			return err
		}, nil, nil
	}}
}

// query reads all rows of a text without arguments.
func query(name, text string) workload {
	return workload{name: name, start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		return func() error {
			rows, err := db.QueryContext(ctx, text)
			if err != nil {
				return err
			}
			var v int64
			for rows.Next() {
				if err := rows.Scan(&v); err != nil {
					return err
				}
			}
			return rows.Close()
		}, nil, nil
	}}
}

// queryRow reads one row of a text with one argument.
func queryRow(text string) workload {
	return workload{name: "QueryRow", further: 1, start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		return func() error {
			var v int64
			return db.QueryRowContext(ctx, text, 42).Scan(&v)
		}, nil, nil
	}}
}

// preparedExec executes a statement with one argument.
func preparedExec(text string) workload {
	return workload{name: "prepared Exec", further: 1, start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		st, err := db.PrepareContext(ctx, text)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			_, err := st.ExecContext(ctx, 42)
			return err
		}, st.Close, nil
	}}
}

// preparedQueryRow reads one row of a statement with one argument.
func preparedQueryRow(text string) workload {
	return workload{name: "prepared QueryRow", further: 1, start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		st, err := db.PrepareContext(ctx, text)
		if err != nil {
			return nil, nil, err
		}
		return func() error {
			var v int64
			return st.QueryRowContext(ctx, 42).Scan(&v)
		}, st.Close, nil
	}}
}

// tx is a transaction of one statement.
func tx(text string) workload {
	return workload{name: "Tx", further: 2, start: func(ctx context.Context, db *sql.DB) (func() error, func() error, error) {
		return func() error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, text); err != nil {
				_ = tx.Rollback()
				return err
			}
			return tx.Commit()
		}, nil, nil
	}}
}
