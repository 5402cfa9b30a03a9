package driver_test

import (
	"os"
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
