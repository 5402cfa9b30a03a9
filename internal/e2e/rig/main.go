package rig

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// Main is for TestMain: it runs a package's tests with servers that they share, and then no goroutine may be left.
func Main(m *testing.M) { goleak.VerifyTestMain(parting{pgtest.Suite(m)}) }

// parting gives what is said to a hung server in parting the second that it may take, which is more than goleak gives it.
type parting struct{ goleak.TestingM }

func (p parting) Run() int {
	code := p.TestingM.Run()
	for end := time.Now().Add(2 * time.Second); goleak.Find() != nil && time.Now().Before(end); {
	}
	return code
}
