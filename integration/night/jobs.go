package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// job is a command that is run again and again.
type job struct {
	name string
	dir  string
	args func() []string // anew for each run, for the seeds in them
	kept string          // the folder for the outputs of runs that failed

	runs     []time.Duration
	failures []failure
}

// failure is a run that failed.
type failure struct {
	args []string
	file string // the output
	said string // of it what tells the failure from others
}

// limit is how long a run may take.
const limit = 30 * time.Minute

// always has the same arguments each time.
func always(args ...string) func() []string { return func() []string { return args } }

// programs are the jobs that are no test binaries, in the order of their first runs. What is built here takes its time, so each brings
// about ten minutes of work.
func programs(root, bin string) []*job {
	seed := func() string { return fmt.Sprint(rand.Uint64N(1 << 40)) }
	integration := filepath.Join(root, "integration")
	fuzz := func(name, dir string) *job {
		return &job{name: "fuzz " + name, dir: filepath.Join(root, dir),
			args: always("go", "test", "-run", "-", "-fuzz", name, "-fuzztime", "10m", "-fuzzminimizetime", "1s", ".")}
	}
	return []*job{
		{name: "simulation of the pool", dir: filepath.Join(root, "internal/pool"), args: func() []string {
			return []string{binary(bin, "internal/pool"), "-test.run", "TestSimulation", "-seeds", "5000", "-seed", seed()}
		}},
		{name: "simulation of the driver", dir: filepath.Join(root, "internal/sim"), args: func() []string {
			return []string{"go", "test", "-count=1", "-timeout", limit.String(), "-run", "TestSeeds", ".", "-seeds", "5000", "-seed", seed()}
		}},
		{name: "ledger", dir: integration, args: func() []string {
			return []string{"go", "run", "./ledger", "-duration", "10m", "-keep", bin, "-seed", seed(),
				"-drivers", "managedpg-pgx,managedpg-pq,managedpg-pgx-sql,managedpg-pq-sql"}
		}},
		{name: "failover", dir: integration, args: always("go", "run", "./failover", "-quick", "-untimed")},
		// Without the faults of which the calls within some time are counted: beside other jobs that is a matter of luck.
		{name: "harm", dir: integration, args: always("go", "run", "./harm", "-only", "^(new|a|the|Prepare)")},
		{name: "suites", dir: integration, args: always("go", "run", "./suites")},
		{name: "race", dir: filepath.Join(root, "bench"), args: always("go", "run", "./race", "-quick")},
		fuzz("FuzzParseDSN", "."),
		fuzz("FuzzText", "internal/sqltext"),
	}
}

func binary(bin, name string) string {
	return filepath.Join(bin, fileName(name)+".test")
}

func fileName(name string) string {
	return strings.NewReplacer("/", "-", " ", "-", ".", "root").Replace(name)
}

// findJobs builds the test binaries into a folder, and returns the jobs that match.
func findJobs(ctx context.Context, bin string, pick *regexp.Regexp) ([]*job, error) {
	root, err := output(ctx, ".", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	var jobs []*job
	for _, module := range []string{".", "driver/sqlxbind", "bench", "integration"} {
		list, err := output(ctx, filepath.Join(root, module), "go", "list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.Dir}}{{end}}", "./...")
		if err != nil {
			return nil, err
		}
		for _, dir := range strings.Fields(list) {
			name, err := filepath.Rel(root, dir)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, &job{name: name, dir: dir, args: always(binary(bin, name), "-test.timeout", limit.String())})
		}
	}
	jobs = append(jobs, programs(root, bin)...)
	jobs = slices.DeleteFunc(jobs, func(j *job) bool { return !pick.MatchString(j.name) })
	if len(jobs) == 0 {
		return nil, errors.New("no job matches")
	}
	for _, j := range jobs {
		j.kept = bin
		if file := j.args()[0]; filepath.IsAbs(file) {
			fmt.Fprintln(os.Stderr, "building", j.name)
			if _, err := output(ctx, j.dir, "go", "test", "-race", "-c", "-o", file, "."); err != nil {
				return nil, err
			}
		}
	}
	return jobs, nil
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s in %s: %w\n%s", name, dir, err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// play runs the jobs in turn, so many at a time, and begins none after the deadline. No job runs beside itself.
func play(ctx context.Context, jobs []*job, parallel int, deadline time.Time) {
	waiting := make(chan *job, len(jobs))
	for _, i := range rand.Perm(len(jobs)) {
		waiting <- jobs[i]
	}
	var workers sync.WaitGroup
	for range min(parallel, len(jobs)) {
		workers.Go(func() {
			for time.Now().Before(deadline) && ctx.Err() == nil {
				j := <-waiting
				j.run(ctx)
				waiting <- j
			}
		})
	}
	workers.Wait()
}

// run runs the job once. One that is interrupted doesn't count.
func (j *job) run(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	args := j.args()
	cmd := exec.CommandContext(limited, args[0], args[1:]...)
	cmd.Dir = j.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its servers go with it
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return
	}
	j.runs = append(j.runs, time.Since(start))
	if err == nil {
		return
	}
	f := failure{args: args, said: excerpt(string(out))}
	if limited.Err() != nil {
		f.said = "not done within " + limit.String() + "\n" + f.said
	}
	if f.file, err = j.keep(out); err != nil {
		f.said += "\n" + err.Error()
	}
	j.failures = append(j.failures, f)
	fmt.Fprintf(os.Stderr, "%s %s failed: %s\n", time.Now().Format(time.TimeOnly), j.name, f.file)
}

// keep writes the output of a run into a file that stays.
func (j *job) keep(out []byte) (string, error) {
	file, err := os.CreateTemp(j.kept, fileName(j.name)+"-*.txt")
	if err != nil {
		return "", err
	}
	if _, err := file.Write(out); err != nil {
		return "", errors.Join(err, file.Close())
	}
	return file.Name(), file.Close()
}
