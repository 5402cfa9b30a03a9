package pgtest_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// What was acknowledged by the first is on the second, also after they have changed places.
func TestReplicatedPairSwaps(t *testing.T) {
	p, err := pgtest.Replicated()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	old := p.A
	if err := p.A.Exec("CREATE TABLE t (k int)", "INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.B.Promote(); err != nil {
		t.Fatal(err)
	}
	if err := p.Swap(); err != nil {
		t.Fatal(err)
	}
	if p.B != old {
		t.Error("the old primary is not the standby")
	}
	if err := p.A.Exec("INSERT INTO t VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	if n, err := p.A.QueryString("SELECT count(*) FROM t"); err != nil || n != "2" {
		t.Errorf("%s rows, %v", n, err)
	}
	if state, err := p.A.QueryString("SELECT sync_state FROM pg_stat_replication"); err != nil || state != "sync" {
		t.Errorf("the standby is %q, %v", state, err)
	}
}
