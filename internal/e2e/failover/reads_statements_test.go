package failover_test

import (
	"database/sql"
	"sync"
	"testing"
	"time"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// smallReading is a sql.DB of one primary and one standby, to each of which pool_size=size.
func smallReading(t *testing.T, size string) *sql.DB {
	t.Helper()
	primary := pgtest.Start(t)
	return rig.OpenQuietly(t, rig.WithKeys(cluster(primary, rig.Standby(t, primary)), "pool_size="+size, "max_overflow=0", "standby_reads=true"))
}

// More readers of a shared sql.Stmt than connections: each waits its turn, where SetMaxOpenConns has database/sql wait too.
func TestSharedStatementsReadBelowSetMaxOpenConns(t *testing.T) {
	db := smallReading(t, "2")
	db.SetMaxOpenConns(6)
	db.SetMaxIdleConns(6)
	st, err := db.Prepare("SELECT 1 FROM pg_sleep(0.002)")
	rig.NoError(t, err)
	defer st.Close()
	reads := managedpg.ReadOnly(t.Context())
	var all sync.WaitGroup
	for range 24 {
		all.Go(func() {
			for range 20 {
				if _, err := st.ExecContext(reads); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// A transaction that is READ ONLY, begun while the connections for reads are in use, doesn't keep a shared sql.Stmt from being closed by who
// has them: it begins on the connection that it has.
func TestAStatementIsClosedWhileATransactionWouldWaitForReads(t *testing.T) {
	db := smallReading(t, "1")
	held, err := db.Conn(managedpg.ReadOnly(t.Context()))
	rig.NoError(t, err)
	rig.NoError(t, held.PingContext(managedpg.ReadOnly(t.Context())))
	st, err := db.Prepare("SELECT 1")
	rig.NoError(t, err)
	begun := make(chan error, 1)
	go func() {
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
		if err == nil {
			_, err = tx.Exec("SELECT 1")
		}
		if err == nil {
			err = tx.Commit()
		}
		begun <- err
	}()
	closed := make(chan error, 1)
	go func() {
		rig.NoError(t, <-begun)
		closed <- st.Close()
	}()
	select {
	case err := <-closed:
		rig.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Error("the transaction waits for the connection for reads")
	}
	rig.NoError(t, held.Close())
}
