package rig

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// TxRig is a database with a table of one column, behind a proxy, and how often InTx's function ran.
type TxRig struct {
	*testing.T
	DB     *sql.DB // through the proxy
	Direct *sql.DB
	Proxy  *pgtest.Proxy
	Runs   int
}

// InTxEach runs a test with both base drivers and both policies.
func InTxEach(t *testing.T, test func(t *testing.T, c Combination, r *TxRig)) {
	for _, c := range Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			dsn := pgtest.Database(t)
			r := &TxRig{T: t, Proxy: pgtest.NewProxy(t, pgtest.Shared(t).Addr()), Direct: Open(t, dsn)}
			r.DB = Open(t, c.DSN(r.Proxy.DSN(dsn)))
			Exec(t, r.Direct, "CREATE TABLE t (k int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
			test(t, c, r)
		})
	}
}

// InTx is managedpg.InTx that counts.
func (r *TxRig) InTx(ctx context.Context, opts *managedpg.TxOptions, fn func(context.Context, *sql.Tx) error) error {
	r.Runs = 0
	return managedpg.InTx(ctx, r.DB, opts, func(ctx context.Context, tx *sql.Tx) error {
		r.Runs++
		return fn(ctx, tx)
	})
}

// Insert1 inserts a row, and then does what more says.
func Insert1(more func(context.Context, *sql.Tx) error) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err != nil {
			return err
		}
		return more(ctx, tx)
	}
}

// Nothing is what Insert1 does after its row.
func Nothing(context.Context, *sql.Tx) error { return nil }

// Want checks how often fn ran and how many rows it left, and removes them.
func (r *TxRig) Want(runs, rows int) {
	r.Helper()
	if r.Runs != runs {
		r.Errorf("the function ran %d times, want %d", r.Runs, runs)
	}
	if n := Value[int](r.T, r.Direct, "SELECT count(*) FROM t"); n != rows {
		r.Errorf("%d rows, want %d", n, rows)
	}
	Exec(r.T, r.Direct, "DELETE FROM t")
}

// WantErr wants each of the errors in err.
func (r *TxRig) WantErr(err error, wanted ...error) {
	r.Helper()
	for _, w := range wanted {
		if !errors.Is(err, w) {
			r.Errorf("got %v, want %v in it", err, w)
		}
	}
}

// OnCommit is for a proxy: the message is a COMMIT.
func OnCommit(m pgtest.Message) bool {
	return (m.Type == 'Q' || m.Type == 'E') && strings.EqualFold(m.Text, "commit")
}
