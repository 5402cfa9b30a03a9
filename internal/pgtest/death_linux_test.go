package pgtest_test

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/managedpg/managedpg/internal/pgtest"
)

// The process ends in the worst way: at once, with one server running and one frozen.
func TestServersDieWithTheProcess(t *testing.T) {
	if os.Getenv("PGTEST_DIE") != "" {
		dieWithServers(t)
	}
	exe, err := os.Executable()
	must(t, err)
	for _, way := range []string{"kill", "panic"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(exe, "-test.run=^TestServersDieWithTheProcess$")
			cmd.Env = append(os.Environ(), "PGTEST_DIE="+way)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			ground := ""
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if dir, ok := strings.CutPrefix(lines.Text(), "servers in "); ok {
					ground = dir
				}
			}
			if err := cmd.Wait(); err == nil || ground == "" {
				t.Fatalf("the process ended with %v and servers in %q", err, ground)
			}
			eventually(t, ground+" is left", func() bool {
				_, err := os.Stat(ground)
				return errors.Is(err, os.ErrNotExist)
			})
			eventually(t, "processes are left", func() bool { return processesIn(ground) == 0 })
		})
	}
}

func dieWithServers(t *testing.T) {
	running, err := pgtest.New()
	must(t, err)
	frozen, err := pgtest.New()
	must(t, err)
	must(t, frozen.Freeze())
	ground := filepath.Dir(running.SocketDir())
	if processesIn(ground) < 10 {
		t.Fatal("two servers are more processes than that")
	}
	os.Stdout.WriteString("servers in " + ground + "\n")
	if os.Getenv("PGTEST_DIE") == "kill" {
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	panic("as told")
}

// processesIn counts the processes that run in a folder, as PostgreSQL's do in their data folder.
func processesIn(dir string) (n int) {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			n++
		}
	}
	return n
}
