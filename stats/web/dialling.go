package web

import (
	"fmt"

	"github.com/managedpg/managedpg/stats"
)

// That connections are opened in calls is worth a word from so many on, and when at least one in so many checkouts does.
const (
	manyDials   = 100
	oftenDialed = 10
)

// dialling: where database/sql governs it keeps fewer connections than are in use at a time, and calls open new ones.
func dialling(in *situation) (problem, bool) {
	s := in.stats
	opened, checkouts := in.present.dials-in.before.dials, in.present.checkouts-in.before.checkouts
	if s.GovernedBy != stats.GovernedBySQL || opened < manyDials || opened*oftenDialed < checkouts ||
		2*s.ClosedBy[stats.ClosedIdle] < s.TotalConnectionsCreated {
		return problem{}, false
	}
	text := fmt.Sprintf("Calls dial: %s opened for %s in the last %s, as database/sql closes what is given back beyond SetMaxIdleConns, which is 2 "+
		"unless it is called.", count(opened, "connection"), count(checkouts, "checkout"), short(lately))
	return problem{Level: "warn", Text: text, Do: "Call db.SetMaxIdleConns with as many as are in use at a time, or give pool_size."}, true
}
