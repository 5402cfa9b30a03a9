package main

import (
	"os"
	"strings"
	"testing"
)

// What the documents quote is what the results say.
func TestQuotedAsMeasured(t *testing.T) {
	results, err := os.ReadFile("RESULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range quoting {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if with, err := quote(string(text), string(results)); err != nil || with != string(text) {
			t.Errorf("%s doesn't quote RESULTS.md: go run . -quote (%v)", path, err)
		}
	}
}

func TestQuote(t *testing.T) {
	const results = "## PostgreSQL, unpinned\n\n" +
		"| Exec | by database/sql, defaults | bare pgx | 1 | +1 | 1.020 (0.9-1.1) | 0.1 | 3.0 (+0.0) | 1.02 | PASS |\n" +
		"| Exec | pgxpool | bare pgx | 1 | +1 | 1.044 (0.9-1.1) | 0.1 | 3.0 (+0.0) | | |\n"
	got, err := quote("before\n\n"+quotedHead+"| old | 1 | 2 | 3 | 4 | 5 |\n\nafter\n", results)
	want := "before\n\n" + quotedHead + "| the same, client and server on the same cores | 1.020 | | | | 1.044 |\n\nafter\n"
	if err != nil || got != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, got, want)
	}
	if _, err := quote("no table", results); err == nil || !strings.Contains(err.Error(), "no table") {
		t.Errorf("a text without the table: %v", err)
	}
}
