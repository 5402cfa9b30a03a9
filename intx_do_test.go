package managedpg_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// The BEGIN and END of a DO block or of a function's body are a block's: they neither keep InTx from trying again, nor make a loss in
// a transaction one of unknown outcome.
func TestInTxWithBlocks(t *testing.T) {
	const block = "DO $$ BEGIN UPDATE n SET v = v + 1 WHERE id = 1; END $$"
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		rig.Exec(t, r.Direct, "CREATE TABLE n (id int, v int)")
		rig.Exec(t, r.Direct, "INSERT INTO n VALUES (1, 0)")
		opts := &managedpg.TxOptions{TxOptions: sql.TxOptions{Isolation: sql.LevelRepeatableRead}, Retries: 2}
		inBlock := func(ctx context.Context, tx *sql.Tx) error {
			rig.Exec(t, tx, "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN PERFORM 1; END $f$")
			if r.Runs <= 2 {
				rig.Exec(t, r.Direct, "UPDATE n SET v = v + 100 WHERE id = 1")
			}
			_, err := tx.ExecContext(ctx, block)
			return err
		}
		if err := r.InTx(t.Context(), opts, inBlock); err != nil {
			t.Error(err)
		}
		r.Want(3, 0)
		if v := rig.Value[int](t, r.Direct, "SELECT v FROM n"); v != 201 {
			t.Errorf("v is %d", v)
		}

		// Lost after it has run, and before COMMIT.
		r.Proxy.Arm(pgtest.Fault{On: pgtest.OnText(block), Do: pgtest.Reset})
		err := r.InTx(t.Context(), nil, rig.Insert1(func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, block)
			return err
		}))
		r.WantErr(err, managedpg.ErrTxLost)
		r.Want(1, 0)
		if v := rig.Value[int](t, r.Direct, "SELECT v FROM n"); v != 201 {
			t.Errorf("v is %d after the loss", v)
		}

		// Lost in the statement after it.
		const after = "UPDATE n SET v = v + 1"
		r.Proxy.Arm(pgtest.Fault{On: pgtest.OnText(after), Do: pgtest.Reset})
		err = r.InTx(t.Context(), &managedpg.TxOptions{Retries: 1}, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, block); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, after)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		r.Want(2, 0)
		if v := rig.Value[int](t, r.Direct, "SELECT v FROM n"); v != 203 {
			t.Errorf("v is %d after the second try", v)
		}
	})
}

// Outside of a transaction a DO block may commit in its middle, so one that is lost is of unknown outcome; inside the server refuses it.
func TestBlockThatCommits(t *testing.T) {
	const block = "DO $$ BEGIN INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); END $$"
	rig.InTxEach(t, func(t *testing.T, c rig.Combination, r *rig.TxRig) {
		r.Proxy.Arm(pgtest.Fault{On: pgtest.OnText(block), Do: pgtest.Reset})
		if _, err := r.DB.ExecContext(t.Context(), block); !errors.Is(err, managedpg.ErrOutcomeUnknown) {
			t.Errorf("lost: %v", err)
		}
		r.Want(0, 2)
		// Its row commits, and then it fails.
		_, err := r.DB.ExecContext(t.Context(), "DO $$ BEGIN INSERT INTO t VALUES (1); COMMIT; PERFORM 1/0; END $$")
		rig.WantSQLState(t, c, err, "22012")
		r.Want(0, 1)

		err = r.InTx(t.Context(), &managedpg.TxOptions{Retries: 3}, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, block)
			return err
		})
		rig.WantSQLState(t, c, err, "2D000")
		r.Want(1, 0)
	})
}
