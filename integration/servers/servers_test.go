// Package servers runs managedpg against what stands between a program and PostgreSQL, or promotes it: PgBouncer, HAProxy,
// Patroni. Each is a real one that the tests start and lose servers behind.
package servers

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

func TestMain(m *testing.M) {
	managedpg.SetLogger(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(pgtest.Suite(m))
}

// host is a folder and the server that runs in it.
type host struct {
	*testing.T
	dir   string
	alive *os.File // the server's keeper ends it when this closes, however the test ends
	cmd   *exec.Cmd
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "managedpg-servers")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{T: t, dir: dir}
	t.Cleanup(func() {
		h.kill()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("the log in %s:\n%s", dir, log[max(0, len(log)-4000):])
		}
		os.RemoveAll(dir)
	})
	if uid, gid, other := account(); other {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// file writes a file that the server may read, and says where it is.
func (h *host) file(name, text string) string {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.Fatal(err)
	}
	return path
}

// keeper ends the server when its standard input closes, with what the server has started, and with a PostgreSQL that has
// left the server's process group.
const keeper = `trap '' HUP INT QUIT TERM
"$@" >>log 2>&1 </dev/null &
cat >/dev/null
if pid=$(sed -n 1p data/postmaster.pid 2>/dev/null); then
	kill -STOP "$pid"
	kill -KILL "$pid" $(cat "/proc/$pid/task/$pid/children")
	ipcrm -m "$(sed -n '7s/.* //p' data/postmaster.pid)"
fi
kill -KILL 0`

// run starts a program that stays in the foreground. Debian's package of that name has it, and .ci/prepare installs it.
func (h *host) run(debian, program string, args ...string) {
	h.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			h.Fatalf("no %s: install Debian's package %s", program, debian)
		}
	}
	input, alive, err := os.Pipe()
	if err != nil {
		h.Fatal(err)
	}
	defer input.Close()
	cmd := exec.Command("sh", append([]string{"-c", keeper, "keeper", path}, args...)...)
	cmd.Dir, cmd.Stdin = h.dir, input
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid, gid, other := account(); other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.alive, h.cmd = alive, cmd
}

// kill ends the server with SIGKILL, with what it has started.
func (h *host) kill() {
	if h.cmd == nil {
		return
	}
	h.alive.Close()
	_ = h.cmd.Wait() // it is killed with the others
	h.cmd = nil
}

// account is whom servers run as that refuse to be root.
func account() (uid, gid int, other bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		return uid, gid, uid != 0
	}
	return 0, 0, false
}

// freePort is one outside the range from which the system takes ports for outgoing connections.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(7000 + rand.IntN(5000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// pair is a primary with a synchronous standby, so that no write that was acknowledged is lost with the primary.
func pair(t *testing.T) (primary, standby *pgtest.Cluster) {
	t.Helper()
	p, err := pgtest.Replicated()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	if err := p.A.Exec("CREATE TABLE written (id int)"); err != nil {
		t.Fatal(err)
	}
	return p.A, p.B
}

// open opens a pool that is closed with the test.
func open(t *testing.T, dsn string) (*sql.DB, *managedpg.Pool) {
	t.Helper()
	db, err := sql.Open("managedpg", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	pool, _ := managedpg.PoolOf(db)
	return db, pool
}

// writing is a few workers that write numbers, and what they were told.
type writing struct {
	*testing.T
	stop func()

	mu       sync.Mutex
	told     []error
	accepted int
}

// write sets workers to work on the table written, until they are stopped.
func write(t *testing.T, db *sql.DB) *writing {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writing{T: t}
	var workers sync.WaitGroup
	w.stop = func() { cancel(); workers.Wait() }
	t.Cleanup(w.stop)
	for range 4 {
		workers.Go(func() {
			pace := time.NewTicker(2 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				w.one(db)
				<-pace.C
			}
		})
	}
	return w
}

func (w *writing) one(db *sql.DB) {
	w.mu.Lock()
	id := len(w.told)
	w.told = append(w.told, errors.New("not answered"))
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := db.ExecContext(ctx, "INSERT INTO written VALUES ($1)", id)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[id] = err
	if err == nil {
		w.accepted++
	}
}

// goesOn returns when writes are accepted.
func (w *writing) goesOn() {
	w.Helper()
	enough := w.count() + 50
	eventually(w.T, "writes are accepted", func() bool { return w.count() >= enough })
}

func (w *writing) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accepted
}

// check stops the workers and compares what they were told with what is there: a write that succeeded is there once, one of
// unknown outcome at most once, and one that failed otherwise is not.
func (w *writing) check(ids string) {
	w.Helper()
	w.stop()
	rows := map[int]int{}
	for _, field := range strings.Fields(ids) {
		id, err := strconv.Atoi(field)
		if err != nil {
			w.Fatal(err)
		}
		rows[id]++
	}
	unknown, failed := 0, 0
	for id, err := range w.told {
		n := rows[id]
		switch {
		case err == nil && n != 1:
			w.Errorf("write %d: told success, and is there %d times", id, n)
		case errors.Is(err, managedpg.ErrOutcomeUnknown):
			unknown++
			if n > 1 {
				w.Errorf("write %d: told %v, and is there %d times", id, err, n)
			}
		case err != nil:
			failed++
			if n != 0 {
				w.Errorf("write %d: told %v, and is there %d times", id, err, n)
			}
		}
	}
	w.Logf("%d writes: %d accepted, %d of unknown outcome, %d failed", len(w.told), w.accepted, unknown, failed)
}

const allWritten = "SELECT coalesce(string_agg(id::text, ' '), '') FROM written"

// checkOn is check on a cluster.
func (w *writing) checkOn(c *pgtest.Cluster) {
	w.Helper()
	w.stop()
	ids, err := c.QueryString(allWritten)
	if err != nil {
		w.Fatal(err)
	}
	w.check(ids)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
