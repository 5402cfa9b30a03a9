package main

import (
	"testing"
	"time"
)

// A pool of the bare driver holds what it is said to hold, and leaves one connection to the crowd.
func TestGrow(t *testing.T) {
	bare := &subject{"bare", bareFake, limits{open: 20, idle: 20}}
	p, err := bare.grow(20, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if p.bytes < 100 || p.bytes > 2000 {
		t.Errorf("%v bytes for an idle connection of database/sql's", p.bytes)
	}
	if p.queued.perSecond < 1000 || p.queued.p99 < p.queued.median {
		t.Errorf("%+v", p.queued)
	}
}

func TestLeakScanGrows(t *testing.T) {
	few, many := leakScan(10), leakScan(10000)
	if few <= 0 || many < 10*few {
		t.Errorf("%v ns for 10, %v ns for 10000", few, many)
	}
}
