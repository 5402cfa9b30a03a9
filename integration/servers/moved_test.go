package servers

import (
	"context"
	"testing"
)

// An address that leads to the old primary again, after the promoted server was seen behind it: a new connection is not
// written to, whether a probe has looked since or not.
func TestOldPrimaryBehindOneAddress(t *testing.T) {
	ctx := context.Background()
	primary, standby := pair(t)
	db, pool := open(t, "postgres://postgres@"+newProxy(t, primary, standby)+"/postgres?sslmode=disable&target_session_attrs=read-write")
	db.SetMaxIdleConns(-1) // each call dials
	w := write(t, db)
	w.goesOn()
	must(t, primary.Kill())
	must(t, standby.Promote())
	w.goesOn()
	w.stop()
	if h := pool.CheckNow(ctx).Endpoints[0]; h.Timeline != 2 {
		t.Fatalf("health: %+v", h)
	}
	must(t, primary.Restart())
	must(t, primary.Exec("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()"))
	eventually(t, "HAProxy leads to the old primary", func() bool {
		_, err := db.ExecContext(ctx, "INSERT INTO written VALUES (-1)")
		n, countErr := primary.QueryString("SELECT count(*) FROM written WHERE id = -1")
		must(t, countErr)
		if n != "0" {
			t.Fatalf("written to the old primary, told %v", err)
		}
		return err != nil
	})
}
