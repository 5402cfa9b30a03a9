package managedpg_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
