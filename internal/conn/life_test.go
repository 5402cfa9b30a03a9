package conn

import (
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Only life.go touches the state of a life.
func TestNobodyElseTouchesTheState(t *testing.T) {
	touches := regexp.MustCompile(`\.state\.(Store|Swap|CompareAndSwap)|life\.(state|move|is|why)\b`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f == "life.go" || strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if found := touches.Find(text); found != nil {
			t.Errorf("%s: %s", f, found)
		}
	}
}

// A checkout that failed is over with its check-in: nobody is told of it later, and a second Close does nothing.
func TestAFailureEndsWithItsCheckout(t *testing.T) {
	p := &Pool{governed: true}
	c := &Conn{home: p, pool: p}
	failed := errors.New("no connection")
	c.life.fail(failed)
	if _, err := c.enter(t.Context()); err != failed {
		t.Errorf("a call is told %v", err)
	}
	if !c.IsValid() || !c.life.is(lifeEmpty) {
		t.Error("it isn't kept")
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.enter(t.Context()); err != driver.ErrBadConn {
		t.Errorf("a call after Close is told %v", err)
	}
}
