package servers

import (
	"context"
	"database/sql"
	"testing"

	"github.com/managedpg/managedpg"
)

// An address that leads to the old primary again, after the promoted server was seen behind it: a new connection is not
// written to, whether a probe has looked since or not, and whether the old primary was seen before or not.
func TestOldPrimaryBehindOneAddress(t *testing.T) {
	ctx := context.Background()
	primary, standby := pair(t)
	dsn := "postgres://postgres@" + newProxy(t, primary, standby) + "/postgres?sslmode=disable&target_session_attrs=read-write"
	before, pool := open(t, dsn)
	pool.CheckNow(ctx)
	before.SetMaxIdleConns(-1) // each call dials
	w := write(t, before)
	w.goesOn()
	must(t, primary.Kill())
	must(t, standby.Promote())
	w.goesOn()
	w.stop()
	after, newPool := open(t, dsn)
	after.SetMaxIdleConns(-1)
	for _, p := range []*managedpg.Pool{pool, newPool} {
		if h := p.CheckNow(ctx).Endpoints[0]; h.Timeline != 2 {
			t.Fatalf("health: %+v", h)
		}
	}
	must(t, primary.Restart())
	must(t, primary.Exec("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"))
	eventually(t, "HAProxy leads to the old primary", func() bool {
		refused := 0
		for _, db := range []*sql.DB{before, after} {
			_, err := db.ExecContext(ctx, "INSERT INTO written VALUES (-1)")
			n, countErr := primary.QueryString("SELECT count(*) FROM written WHERE id = -1")
			must(t, countErr)
			if n != "0" {
				t.Fatalf("written to the old primary, told %v", err)
			}
			if err != nil {
				refused++
			}
		}
		return refused == 2
	})
}
