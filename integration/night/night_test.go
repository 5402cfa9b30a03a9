package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestExcerpt(t *testing.T) {
	out := "=== RUN   TestA\n--- PASS: TestA\n=== RUN   TestB\n--- FAIL: TestB (0.1s)\n    b_test.go:7: 3, want 4\n=== RUN   TestC\nnoise\n"
	if got := excerpt(out); got != "--- FAIL: TestB (0.1s)\n    b_test.go:7: 3, want 4\n" {
		t.Errorf("of a test's output %q", got)
	}
	if got := excerpt("one\ntwo\n"); got != "one\ntwo\n" {
		t.Errorf("of a program's output %q", got)
	}
}

// What a job prints when it fails is on the page, once for all failures that differ in numbers only, with its arguments and a file for each.
func TestNight(t *testing.T) {
	shell := func(name, script string) *job {
		return &job{name: name, dir: ".", kept: t.TempDir(), args: always("sh", "-c", script)}
	}
	jobs := []*job{shell("good", "sleep 0.01"), shell("bad", "echo --- FAIL: $$; exit 1")}
	play(context.Background(), jobs, 2, time.Now().Add(time.Second/2))
	var b strings.Builder
	if page(&b, jobs, "dir", time.Hour) {
		t.Error("a night with failures is called good")
	}
	for _, want := range []string{`A night of 1h0m0s`, `\| good \| [0-9]+ \| 0 \|`, `\| bad \| ([0-9]+) \| ([0-9]+) \|`, `## bad, [0-9]+ times`,
		`    sh -c echo --- FAIL`, `    --- FAIL: [0-9]+\n`, `- .*bad-[0-9]+\.txt`} {
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("no %q on the page:\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "## bad"); n != 1 {
		t.Errorf("the failures stand there in %d groups", n)
	}
	if len(jobs[0].runs) < 2 || len(jobs[1].failures) < 2 {
		t.Errorf("not again and again:\n%s", b.String())
	}
}
