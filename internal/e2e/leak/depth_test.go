package leak_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
	"github.com/managedpg/managedpg/internal/pgtest"
)

// Each frame of ours costs a stack one of the user's. Where the driver governs a kept connection's has as many as a new one's, and names the caller
// even where eight frames are taken.
func TestStacksOfKeptConnectionsAreAsDeep(t *testing.T) {
	l := newLeaky(t, pgtest.Database(t)+"&pool_size=2&leak_threshold=20ms&leak_stack_depth=8")
	var frames []int
	for i := range 3 {
		c, err := l.db.Conn(t.Context())
		rig.NoError(t, err)
		rig.Eventually(t, "it is reported", func() bool { return len(l.reported()) > i })
		r := l.reported()[i]
		if frames = append(frames, len(r.Stack)); r.Caller == "" {
			t.Errorf("no caller of checkout %d: %v", i, r.Stack)
		}
		rig.NoError(t, c.Close())
	}
	if frames[0] != frames[1] || frames[1] != frames[2] {
		t.Errorf("stacks of %v frames", frames)
	}
}
