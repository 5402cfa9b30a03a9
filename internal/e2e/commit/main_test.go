// Package commit_test is about transactions: what became of a COMMIT that was not answered, and what may be sent in one.
package commit_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
