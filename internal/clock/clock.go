// Package clock tells the program's time: how long it has run. Reading that costs half of time.Now, and a duration is one word.
package clock

import "time"

var started = time.Now()

// Now is how long the program has run.
func Now() time.Duration { return time.Since(started) }

// Time is the instant at which Now was at.
func Time(at time.Duration) time.Time { return started.Add(at) }
