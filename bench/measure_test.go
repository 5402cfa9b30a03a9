package main

import (
	"testing"
	"time"
)

// A first call that takes long, as it opens a connection, doesn't make blocks of one call.
func TestCalibrateGoesByTheQuickest(t *testing.T) {
	var at time.Duration
	calls := 0
	b := &bench{now: func() time.Duration { return at }, call: func() error {
		if calls++; calls <= 2 {
			at += time.Second
		}
		at += time.Microsecond
		return nil
	}}
	n, err := calibrate(b, b, time.Millisecond)
	if err != nil || n < 500 || n > 1000 {
		t.Errorf("blocks of %d calls, %v; want some 1000", n, err)
	}
}
