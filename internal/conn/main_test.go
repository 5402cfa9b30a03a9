package conn

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Suite(m)) }
