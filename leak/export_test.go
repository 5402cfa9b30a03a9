package leak

import "time"

// UsageAt is Usage at a time of the test's choosing.
func (t *Tracker) UsageAt(now time.Duration) []Usage { return t.usageAt(now) }
