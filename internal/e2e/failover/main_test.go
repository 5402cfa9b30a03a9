// Package failover_test kills, stops, promotes and brings back servers under pools that are in use.
package failover_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
