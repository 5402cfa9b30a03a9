package servers

import (
	"context"
	"strings"
	"testing"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// A role that may not call what the probes ask for: everything works that doesn't need the answers, and Health says what
// that costs.
func TestRoleWithoutRights(t *testing.T) {
	t.Parallel()
	const (
		identity = "pg_control_system(), pg_control_checkpoint(), pg_walfile_name(pg_lsn), pg_current_wal_lsn()"
		recovery = "pg_is_in_recovery()"
		settings = "current_setting(text), current_setting(text, boolean)"
	)
	for name, level := range map[string]struct {
		revoked string
		note    string
		role    failover.Role // of a primary
	}{
		"timeline":                {identity, "its timeline and system identifier: it can't be fenced", failover.ReadWrite},
		"timeline, standby":       {identity + ", " + recovery, "its role is that of its transactions, and it can't be fenced", failover.ReadWrite},
		"timeline, standby, role": {identity + ", " + recovery + ", " + settings, "it counts as fit for any target_session_attrs, and can't be fenced", failover.RoleUnknown},
	} {
		for _, base := range []string{"pgx", "pq"} {
			t.Run(name+"/"+base, func(t *testing.T) {
				primary := pgtest.Start(t)
				must(t, primary.Exec("CREATE ROLE app LOGIN", "GRANT ALL ON SCHEMA public TO app",
					"REVOKE EXECUTE ON FUNCTION "+level.revoked+" FROM PUBLIC"))
				standby, err := primary.Standby()
				must(t, err)
				defer standby.Close()
				db, pool := open(t, "postgres://app@"+primary.Addr()+","+standby.Addr()+"/postgres?sslmode=disable&base_driver="+base)
				ctx := context.Background()
				_, err = db.ExecContext(ctx, "CREATE TABLE fruit (name text)")
				must(t, err)
				for i, h := range pool.CheckNow(ctx).Endpoints {
					if h.State != failover.Up || !strings.Contains(h.Note, level.note) || h.Timeline != 0 || h.Fenced {
						t.Errorf("health: %+v", h)
					}
					if i == 0 && h.Role != level.role {
						t.Errorf("the primary's role is %s", h.Role)
					}
				}
				must(t, primary.Kill())
				must(t, standby.Promote())
				_, err = db.ExecContext(ctx, "CREATE TABLE vegetable (name text)")
				must(t, err)
				if f := pool.Failover(); f.FailoverCount != 1 || f.IsPrimary {
					t.Errorf("after the primary's death: %+v", f)
				}
				if h := pool.CheckNow(ctx).Endpoints[1]; h.Role != level.role || !strings.Contains(h.Note, level.note) {
					t.Errorf("health of the promoted one: %+v", h)
				}
			})
		}
	}
}
