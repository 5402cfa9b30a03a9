package pgtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ground is the folder in which all clusters of the process live, with the template they are copied from: initdb takes
// far longer than a copy. It is made for the first cluster and removed with the last, or by Main. It lies in
// memory where that is to be had, since a busy disk makes everything here several times slower, unless TMPDIR says where.
var ground playground

type playground struct {
	mu       sync.Mutex
	bin      string
	dir      string // empty while there is none
	keeper   *exec.Cmd
	alive    *os.File // the keeper cleans up when this end of its standard input closes
	clusters int
	held     bool // stays without clusters, since more are to come
	number   int  // of the last cluster made
	ports    map[int]bool
}

// enter makes room for one more cluster; each is followed by a leave.
func (g *playground) enter() (bin string, number int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dir == "" {
		if err := g.make(); err != nil {
			return "", 0, errors.Join(err, g.remove())
		}
	}
	g.clusters++
	g.number++
	return g.bin, g.number, nil
}

func (g *playground) leave() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clusters--
	if g.clusters > 0 || g.held {
		return nil
	}
	return g.remove()
}

// hold keeps the folder, or lets it go.
func (g *playground) hold(on bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = on
	if on || g.clusters > 0 {
		return nil
	}
	return g.remove()
}

// make needs g.mu.
func (g *playground) make() error {
	bin, err := findBinaries()
	if err != nil {
		return err
	}
	parent, err := tempParent()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "pgtest")
	if err != nil {
		return err
	}
	g.bin, g.dir = bin, dir
	if err := giveAway(dir); err != nil {
		return err
	}
	if err := g.startKeeper(); err != nil {
		return err
	}
	return initdb(bin, g.template())
}

// initdb makes a system of its own in a folder.
func initdb(bin, dir string) error {
	return run(filepath.Join(bin, "initdb"), "-D", dir, "-U", "postgres", "-A", "trust", "--no-sync",
		"-E", "UTF8", "--locale=C")
}

// remove needs g.mu.
func (g *playground) remove() error {
	if g.dir == "" {
		return nil
	}
	err := os.RemoveAll(g.dir)
	if g.keeper != nil {
		g.alive.Close()
		g.keeper.Wait() // its exit status says nothing that the removal above did not
	}
	g.dir, g.keeper, g.alive = "", nil, nil
	return err
}

func (g *playground) template() string { return filepath.Join(g.dir, "template") }

// keeperScript outlives this process, however that ends, and then kills the servers left, backends first stopped from
// being replaced, and removes their memory segments (System V's, which outlive a killed server) and files.
const keeperScript = `trap '' HUP INT QUIT TERM
cat >/dev/null
for f in "$1"/*/data/postmaster.pid; do
	[ -f "$f" ] || continue
	pid=$(sed -n 1p "$f")
	kill -STOP "$pid"
	kill -KILL "$pid" $(cat "/proc/$pid/task/$pid/children")
	ipcrm -m "$(sed -n '7s/.* //p' "$f")"
done
for try in 1 2 3 4 5; do
	rm -rf "$1" && break
	sleep 1
done`

// startKeeper needs g.mu.
func (g *playground) startKeeper() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("sh", "-c", keeperScript, "pgtest-keeper", g.dir)
	cmd.Stdin = r
	cmd.Dir = "/"
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		w.Close()
		return fmt.Errorf("pgtest: start the shell that cleans up after this process: %w", err)
	}
	g.keeper, g.alive = cmd, w
	return nil
}

// reservePort finds a free port below those that Linux hands to outgoing connections, so that a server which is down for a
// while finds its port free when it comes back.
func (g *playground) reservePort() (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ports == nil {
		g.ports = map[int]bool{}
	}
	for range 1000 {
		port := 12000 + rand.IntN(20000)
		if g.ports[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		g.ports[port] = true
		return port, stopListening(l)
	}
	return 0, errors.New("pgtest: no free port between 12000 and 32000")
}

func (g *playground) freePort(port int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.ports, port)
}

// account is whom servers run as when it isn't who runs this: PostgreSQL refuses to be root.
func account() (uid, gid int, other bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil {
			return uid, gid, true
		}
	}
	return 0, 0, false // PostgreSQL's own message says the rest
}

func giveAway(dir string) error {
	if uid, gid, other := account(); other {
		return os.Chown(dir, uid, gid)
	}
	return nil
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return giveAway(dir)
}

// tempParent is a temporary folder that the server's account can reach, and whose path leaves room for a Unix socket's
// name, at most 107 bytes in all and 103 on some systems.
func tempParent() (string, error) {
	dirs := []string{os.TempDir(), "/tmp", "/var/tmp"}
	if os.Getenv("TMPDIR") == "" && roomInMemory() {
		dirs = slices.Insert(dirs, 0, memoryDir)
	}
	for _, dir := range dirs {
		if len(dir) <= 60 && reachable(dir) {
			return dir, nil
		}
	}
	return "", errors.New("pgtest: no temporary folder with a short path that the server's account can reach")
}

// reachable is whether everyone may pass through dir and its parents; it matters only when the account is another.
func reachable(dir string) bool {
	if _, _, other := account(); !other {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// command is a program run as the servers' account, without the PG* variables meant for the user's own server.
func command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Dir = ground.dir
	cmd.SysProcAttr = serverAttr()
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

func run(path string, args ...string) error {
	out, err := command(path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgtest: %s: %w\n%s", filepath.Base(path), err, out)
	}
	return nil
}

// copyTree keeps modes and owner, which PostgreSQL insists on.
func copyTree(from, to string) error { return run("cp", "-a", from, to) }
