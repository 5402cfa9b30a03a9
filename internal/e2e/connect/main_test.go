// Package connect_test is about what happens while a connection is made: hooks of the user's, and callers that give up.
package connect_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
