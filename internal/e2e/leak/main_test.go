// Package leak_test is about connections held for too long: who holds them, and what takes them back.
package leak_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
