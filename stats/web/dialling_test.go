package web

import (
	"strings"
	"testing"

	"github.com/managedpg/managedpg/failover"
	"github.com/managedpg/managedpg/stats"
)

func TestCallsThatDial(t *testing.T) {
	for _, c := range []struct {
		governedBy                     string
		opened, checkouts, closed, all int64
		told                           bool
	}{
		{stats.GovernedBySQL, 400, 1000, 398, 400, true},
		{stats.GovernedBySQL, 200, 2000, 198, 200, true},
		{stats.GovernedBySQL, 199, 2000, 197, 199, false}, // not often
		{stats.GovernedBySQL, 99, 100, 97, 99, false},     // not many
		{stats.GovernedBySQL, 400, 1000, 100, 400, false}, // closed by others
		{stats.GovernedByDriver, 400, 1000, 398, 400, false},
	} {
		in := situation{health: new(failover.Health), status: new(failover.Status), before: sample{dials: 7, checkouts: 70},
			present: sample{dials: 7 + c.opened, checkouts: 70 + c.checkouts},
			stats:   &stats.Snapshot{GovernedBy: c.governedBy, Endpoint: "db1", IsPrimary: true, Size: 4, TotalConnectionsCreated: c.all}}
		in.stats.ClosedBy[stats.ClosedIdle] = c.closed
		all := in.problems()
		if told := len(all) == 1 && strings.HasPrefix(all[0].Text, "Calls dial: "); told != c.told || len(all) > 1 {
			t.Errorf("%+v: told %q", c, all)
		}
	}
}
