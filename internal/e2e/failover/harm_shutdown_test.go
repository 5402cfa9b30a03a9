package failover_test

import (
	"net"
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// In a smart shutdown the server goes on with the sessions that it has, a probe's among them, and lets nobody in. The pool leaves it once, and
// the server ends when those are gone.
func TestASmartShutdownIsLeftOnce(t *testing.T) {
	t.Parallel()
	for _, c := range rig.Combinations {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			primary := pgtest.Start(t)
			standby := rig.Standby(t, primary)
			db := rig.OpenQuietly(t, c.DSN(cluster(primary, standby), "target_session_attrs=any", "failback_after=1"))
			db.SetMaxIdleConns(4)
			rig.Warm(t, db, 2)
			pool := rig.PoolOf(t, db)
			for range 3 {
				pool.CheckNow(t.Context())
			}
			rig.NoError(t, primary.LetNobodyIn())
			rig.Eventually(t, "nobody gets in", func() bool {
				_, err := primary.QueryString("SELECT 1")
				return err != nil
			})
			rig.Warm(t, db, 4)
			for range 10 {
				pool.CheckNow(t.Context())
				if failed := calls(t, db, 4, 10); failed > 0 {
					t.Errorf("%d calls failed", failed)
				}
			}
			if f := pool.Failover(); f.FailoverCount != 1 || f.FailbackCount != 0 {
				t.Errorf("%d failovers, %d failbacks", f.FailoverCount, f.FailbackCount)
			}
			if s := pool.Stats(); s.TotalConnectionsCreated > 2+2*4 {
				t.Errorf("%d connections were opened, closed %v", s.TotalConnectionsCreated, s.ClosedBy)
			}
			rig.Eventually(t, "the server has ended", func() bool {
				n, err := net.Dial("tcp", primary.Addr())
				if err == nil {
					n.Close()
				}
				return err != nil
			})
		})
	}
}
