package main

import (
	"regexp"
	"strings"
	"testing"
)

// A few faults that take little time: so the program goes on working.
func TestNeverWorse(t *testing.T) {
	var out strings.Builder
	good, err := run(&out, regexp.MustCompile("those there are work|rows are open|full server|type was changed"))
	t.Log("\n" + out.String())
	if err != nil || !good {
		t.Errorf("good: %v, %v", good, err)
	}
}
