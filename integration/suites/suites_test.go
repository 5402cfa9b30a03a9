package main

import (
	"os"
	"strings"
	"testing"
)

// What is known to differ stands in docs/suites.md, with its reason, and nothing else does.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/suites.md")
	if err != nil {
		t.Fatal(err)
	}
	told := strings.Count(string(page), "\n- ")
	reasons := map[string]bool{}
	for _, d := range known {
		reasons[d.suite+d.policy+d.why] = true
		if !strings.Contains(string(page), d.why) {
			t.Errorf("docs/suites.md doesn't say: %s", d.why)
		}
		for _, name := range strings.Split(d.test, "|") {
			if !strings.Contains(string(page), name) {
				t.Errorf("docs/suites.md doesn't name %s", name)
			}
		}
	}
	if told != len(reasons) {
		t.Errorf("docs/suites.md has %d items, there are %d", told, len(reasons))
	}
}

// A difference that nobody has explained is one, and a test that fails for its subtests alone isn't named beside them.
func TestDifferences(t *testing.T) {
	bare := results{passed: map[string]bool{"A": true, "B": true, "B/one": true, "B/two": true}}
	got := bare.lostIn(results{passed: map[string]bool{"A": true, "B/one": true}})
	if strings.Join(got, " ") != "B/two" {
		t.Errorf("lost are %q", got)
	}
	if _, ok := explained("lib/pq", "by the driver", "TestProtocolVersion/#06"); ok {
		t.Error("a test is explained that isn't known")
	}
	if _, ok := explained("database/sql", "by database/sql", "TestQuery"); ok {
		t.Error("what is known in one policy is explained in the other")
	}
}
