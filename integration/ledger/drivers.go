package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/managedpg/managedpg"
)

// told is what a caller knows after a call.
type told string

const (
	ok      told = "ok"
	failed  told = "failed"  // it left nothing
	unknown told = "unknown" // it took place, or it didn't
)

// system is a driver, and how a careful program uses it.
type system struct {
	name string
	open func(*servers) (*sql.DB, error)
	// transact runs fn in a transaction.
	transact func(ctx context.Context, db *sql.DB, readOnly bool, fn func(context.Context, *sql.Tx) error) (told, error)
	// exec runs a single statement.
	exec func(ctx context.Context, db *sql.DB, query string, args ...any) (told, error)
	// resolves says that a lost COMMIT is asked for.
	resolves bool
	// marked is the context of what may be read on a standby; nil: the system knows no such thing.
	marked func(context.Context) context.Context
}

// systems are those that can be asked for by name.
func systems(name string) (*system, error) {
	parts := strings.Split(name, "-")
	switch {
	case name == "pgx":
		return bare("pgx", "pgx"), nil
	case name == "pq":
		return bare("pq", "postgres"), nil
	case parts[0] == "managedpg" && len(parts) >= 2 && (parts[1] == "pgx" || parts[1] == "pq"):
		params := []string{"base_driver=" + parts[1], "health_check_interval=1s", "health_check_timeout=1s", "failover_timeout=5s"}
		switch {
		case len(parts) == 2:
			s := managed(name, append(params, "pool_size=8", "standby_reads=true")...)
			s.marked = managedpg.ReadOnly
			return s, nil
		case len(parts) == 3 && parts[2] == "sql":
			return managed(name, params...), nil
		}
	}
	return nil, fmt.Errorf("no driver %q: want pgx, pq, managedpg-pgx, managedpg-pq, or one of the latter with -sql for a pool "+
		"that database/sql governs", name)
}

func bare(name, driver string) *system {
	s := &system{name: name}
	s.open = func(on *servers) (*sql.DB, error) {
		db, err := sql.Open(driver, on.keys("target_session_attrs=read-write", "connect_timeout=2"))
		if err == nil {
			db.SetMaxIdleConns(8)
		}
		return db, err
	}
	s.transact = func(ctx context.Context, db *sql.DB, readOnly bool, fn func(context.Context, *sql.Tx) error) (told, error) {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: readOnly})
		if err != nil {
			return failed, err
		}
		if err := fn(ctx, tx); err != nil {
			_ = tx.Rollback()
			return failed, err
		}
		err = tx.Commit()
		return bareVerdict(err), err
	}
	s.exec = func(ctx context.Context, db *sql.DB, query string, args ...any) (told, error) {
		_, err := db.ExecContext(ctx, query, args...)
		return bareVerdict(err), err
	}
	return s
}

// bareVerdict is the most that can be made of a base driver's error: it failed if the server said so, or there was none.
func bareVerdict(err error) told {
	var pgErr *pgconn.PgError
	var pqErr *pq.Error
	var connecting *pgconn.ConnectError
	switch {
	case err == nil:
		return ok
	case errors.As(err, &connecting), errors.Is(err, pgx.ErrTxCommitRollback), errors.Is(err, pq.ErrInFailedTransaction):
		return failed
	case errors.As(err, &pgErr) && pgErr.Severity == "ERROR", errors.As(err, &pqErr) && pqErr.Severity == "ERROR":
		return failed
	default:
		return unknown
	}
}

func managed(name string, params ...string) *system {
	s := &system{name: name, resolves: true}
	s.open = func(on *servers) (*sql.DB, error) {
		db, err := sql.Open("managedpg", on.url(append(params, "pool_name="+name)...))
		if err == nil && !strings.Contains(strings.Join(params, " "), "pool_size") {
			db.SetMaxIdleConns(8)
		}
		return db, err
	}
	s.transact = func(ctx context.Context, db *sql.DB, readOnly bool, fn func(context.Context, *sql.Tx) error) (told, error) {
		opts := &managedpg.TxOptions{TxOptions: sql.TxOptions{ReadOnly: readOnly}, Retries: 10, ResolveCommit: true}
		err := managedpg.InTx(ctx, db, opts, fn)
		return managedVerdict(err), err
	}
	s.exec = func(ctx context.Context, db *sql.DB, query string, args ...any) (told, error) {
		_, err := db.ExecContext(ctx, query, args...)
		return managedVerdict(err), err
	}
	return s
}

func managedVerdict(err error) told {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, managedpg.ErrOutcomeUnknown):
		return unknown
	default:
		return failed
	}
}
