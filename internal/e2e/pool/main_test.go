// Package pool_test is about the pool's policies, limits and figures, through sql.Open.
package pool_test

import (
	"testing"

	"github.com/managedpg/managedpg/internal/e2e/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
