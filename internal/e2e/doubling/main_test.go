// Package doubling_test breaks connections at every moment of a call: what was sent is never sent twice, and what the caller is told is true.
package doubling_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
