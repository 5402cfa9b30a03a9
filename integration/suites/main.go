// Suites runs the test suites of pgx's stdlib, of lib/pq and of database/sql, and pgconn's tests of contexts, against the bare driver and against managedpg in its
// place, test by test, and prints which tests pass without managedpg and not with it.
//
//	go run ./suites            all of them
//	go run ./suites -only pgx  those that match
//
// The suites are copied from the module cache and from GOROOT into a temporary folder, where the few lines that name the driver are
// changed. It exits with 1 where a test fails of which known.go doesn't say why.
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/managedpg/managedpg/internal/pgtest"
)

func main() {
	only := flag.String("only", "", "only the suites that match this regular expression")
	flag.Parse()
	unexpected, err := run(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
	}
	if err != nil || unexpected > 0 {
		os.Exit(1)
	}
}

// A suite is somebody's tests.
type suite struct {
	name string
	// prepare copies them into a folder, ready for go test, and answers with the package's folder.
	prepare func(dir, repo string) (string, error)
	// env makes the server ready for the tests in a folder, and says where it is.
	env func(c *pgtest.Cluster, pkg string) ([]string, error)
	// run, if not "", is which tests are run: a regular expression.
	run string
}

var suites = []suite{
	{"pgx/stdlib", preparePgx, pgxEnv, ""},
	{"pgx/pgconn", preparePgconn, pgxEnv, "Cancel|Context|Deadline|Notification|Timeout"},
	{"lib/pq", preparePq, pqEnv, ""},
	{"database/sql", prepareSQL, func(*pgtest.Cluster, string) ([]string, error) { return nil, nil }, ""},
}

// policies are the environments in which a copied suite's drivers are managedpg; see swap.
var policies = []struct {
	name string
	env  []string
}{
	{"bare", nil},
	{"by database/sql", []string{"SWAP=managedpg"}},
	{"by the driver", []string{"SWAP=managedpg", "DB_POOL_SIZE=10"}},
}

func run(only string) (unexpected int, err error) {
	meant, err := regexp.Compile(only)
	if err != nil {
		return 0, err
	}
	repo, err := output("", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/managedpg/managedpg")
	if err != nil {
		return 0, err
	}
	c, err := pgtest.New(pgtest.Conf("max_connections=200", "max_prepared_transactions=5"), pgtest.HBA(hba...))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for _, s := range suites {
		if !meant.MatchString(s.name) {
			continue
		}
		more, err := s.compare(c, repo)
		if err != nil {
			return unexpected, fmt.Errorf("%s: %w", s.name, err)
		}
		unexpected += more
	}
	return unexpected, nil
}

// compare runs a suite in each policy, and counts the differences that known doesn't explain.
func (s suite) compare(c *pgtest.Cluster, repo string) (unexpected int, err error) {
	dir, err := os.MkdirTemp("", "suites")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	pkg, err := s.prepare(dir, repo)
	if err != nil {
		return 0, err
	}
	env, err := s.env(c, pkg)
	if err != nil {
		return 0, err
	}
	var bare results
	seen := map[string]bool{} // the known differences that there are
	for _, policy := range policies {
		got, err := test(pkg, append(env, policy.env...), s.run)
		if err != nil {
			return 0, err
		}
		if bare.passed == nil {
			bare = got
		}
		fmt.Printf("%-14s %-16s %4d tests pass, %d fail\n", s.name, policy.name, len(got.passed), len(got.failed))
		for _, name := range bare.lostIn(got) {
			why, ok := explained(s.name, policy.name, name)
			seen[why] = true
			if !ok && alone(pkg, append(env, policy.env...), name) {
				why = "passes when it is run alone"
			} else if !ok {
				unexpected++
				why = "NOT KNOWN\n" + got.output[name]
			}
			fmt.Printf("    %s: %s\n", name, why)
		}
	}
	for _, d := range known {
		if d.suite == s.name && !seen[d.why] {
			fmt.Printf("    %s: PASSES NOW; known.go says: %s\n", d.test, d.why)
		}
	}
	return unexpected, nil
}

// results are what became of the tests of one run, subtests included.
type results struct {
	passed, failed map[string]bool
	output         map[string]string
}

// lostIn are the tests that passed and don't in other; of a test that fails for its subtests alone, just those.
func (r results) lostIn(other results) []string {
	var lost []string
	for name := range r.passed {
		if !other.passed[name] {
			lost = append(lost, name)
		}
	}
	slices.SortFunc(lost, func(a, b string) int { return cmp.Compare(b, a) })
	var own []string
	for _, name := range lost {
		if !slices.ContainsFunc(own, func(sub string) bool { return strings.HasPrefix(sub, name+"/") }) {
			own = append(own, name)
		}
	}
	slices.Reverse(own)
	return own
}

// test runs go test in a folder, and after a panic once more, without the tests that have ended by then.
func test(dir string, env []string, which string) (results, error) {
	r := results{passed: map[string]bool{}, failed: map[string]bool{}, output: map[string]string{}}
	for {
		panicked, err := r.run(dir, env, "-run="+which, "-skip="+r.ended())
		if err != nil || !panicked {
			return r, err
		}
	}
}

// alone says whether a test passes with no other beside it: several fail now and then on a loaded machine, with the bare driver too.
func alone(dir string, env []string, name string) bool {
	top, _, _ := strings.Cut(name, "/")
	r := results{passed: map[string]bool{}, failed: map[string]bool{}, output: map[string]string{}}
	_, err := r.run(dir, env, "-run=^"+top+"$")
	return err == nil && r.passed[name]
}

// ended are the tests whose results are known, for -skip.
func (r *results) ended() string {
	var tests []string
	for _, names := range []map[string]bool{r.passed, r.failed} {
		for name := range names {
			if !strings.Contains(name, "/") {
				tests = append(tests, "^"+name+"$")
			}
		}
	}
	return strings.Join(tests, "|")
}

// run runs go test once, and tells whether a test has panicked or gone on for too long.
func (r *results) run(dir string, env []string, which ...string) (panicked bool, err error) {
	cmd := exec.Command("go", append([]string{"test", "-json", "-count=1", "-timeout=4m", "-vet=off"}, which...)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=-mod=mod"), env...)
	out, err := cmd.Output()
	var all strings.Builder
	for line := range strings.Lines(string(out)) {
		var e struct{ Action, Test, Output string }
		if json.Unmarshal([]byte(line), &e) != nil {
			all.WriteString(line)
			continue
		}
		all.WriteString(e.Output)
		switch {
		case e.Test == "":
		case e.Action == "pass":
			r.passed[e.Test] = true
		case e.Action == "fail":
			r.failed[e.Test] = true
		case e.Action == "output":
			r.output[e.Test] += e.Output
			if top, _, _ := strings.Cut(e.Test, "/"); strings.HasPrefix(e.Output, "panic: ") {
				panicked = true
				r.failed[top] = true
			}
		}
	}
	if len(r.passed) == 0 {
		return false, fmt.Errorf("no test passed: %w\n%s", err, all.String())
	}
	return panicked, nil
}

// output is what a command prints, without the end of the line.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
