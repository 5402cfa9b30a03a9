// Package pool_test is about the pool through sql.Open: how connections are made, with the user's hooks, policies, limits and figures.
package pool_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
