package conn

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/managedpg/managedpg/leak"
)

// A checkout that is reclaimed as a transaction for reads begins stays reclaimed: its holder is told, and no connection for reads is taken.
func TestReclaimedOnTheWayToTheReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := Options{Size: 1, Timeout: time.Second, Leaks: leak.New(leak.Options{ReclaimAfter: time.Hour}), ReclaimAfter: time.Hour}
		p := newFakePool(t, opts)
		reads := newFakePool(t, Options{Size: 1, Timeout: time.Second})
		p.ReadBy(reads)
		held := hold(t, p)
		var c *Conn
		for ph := range p.open.all {
			c = ph.user.Load()
		}
		if !c.phys.Reclaim(c.phys.checkout, leak.Report{}) {
			t.Fatal("not reclaimed")
		}
		if err := c.goReading(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := c.enter(t.Context()); !errors.Is(err, ErrReclaimed) {
			t.Errorf("the holder is told %v", err)
			c.leave()
		}
		if open, inUse := reads.Recorder.Now(); open != 0 || inUse != 0 {
			t.Errorf("of the connections for reads %d are open, %d in use", open, inUse)
		}
		giveBack(held)
	})
}
