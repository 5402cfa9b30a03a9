package pool_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/managedpg/managedpg/internal/e2e/rig"

	"github.com/managedpg/managedpg"
	"github.com/managedpg/managedpg/internal/pgtest"
)

const (
	stormUsers = 64
	stormLimit = 5 + 3
	stormTime  = 3 * time.Second
)

// Whatever 64 goroutines do to a pool of 5 + 3, it keeps to its 8 connections, lends none twice, loses none, and counts
// right.
func TestStorm(t *testing.T) {
	settings := map[string]struct {
		keys []string
		set  func(*sql.DB)
	}{
		"defaults":            {},
		"SetMaxOpenConns(4)":  {set: func(db *sql.DB) { db.SetMaxOpenConns(4) }},
		"SetMaxIdleConns(16)": {set: func(db *sql.DB) { db.SetMaxIdleConns(16) }},
		"short lives":         {keys: []string{"pool_recycle=100ms", "pool_min_idle=4", "pool_idle_timeout=50ms", "pool_reset=discard_all"}},
	}
	for _, base := range []string{"pgx", "pq"} {
		for name, setting := range settings {
			t.Run(base+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newStorm(t, base, setting.keys...)
				if setting.set != nil {
					setting.set(s.db)
				}
				s.rage()
				s.settle()
			})
		}
	}
}

type storm struct {
	t     *testing.T
	gate  *gate
	name  string // of the database
	db    *sql.DB
	pool  *managedpg.Pool
	stmt  *sql.Stmt // all users'
	calls atomic.Int64

	mu    sync.Mutex
	owner map[int]int // by backend, of those sessions that are known to be somebody's
}

func newStorm(t *testing.T, base string, keys ...string) *storm {
	dsn := pgtest.Database(t)
	s := &storm{t: t, gate: newGate(t, pgtest.Shared(t).Addr()), owner: map[int]int{}}
	s.name = path.Base(strings.SplitN(dsn, "?", 2)[0])
	// Health checks are off since a probe's connection is one more, and not the pool's. A machine that is busy otherwise may
	// take its time over a connection.
	keys = append([]string{"base_driver=" + base, "pool_size=5", "max_overflow=3", "pool_timeout=-1", "connect_timeout=0",
		"health_check=false"}, keys...)
	s.db = rig.Open(t, rig.WithKeys(strings.Replace(dsn, pgtest.Shared(t).Addr(), s.gate.addr, 1), keys...))
	s.db.SetMaxIdleConns(2) // database/sql's default
	pool, ok := managedpg.PoolOf(s.db)
	if !ok {
		t.Fatal("no pool")
	}
	s.pool = pool
	rig.Exec(t, s.db, "CREATE TABLE t (n int)")
	var err error
	if s.stmt, err = s.db.Prepare("INSERT INTO t VALUES ($1)"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *storm) rage() {
	ctx, cancel := context.WithTimeout(s.t.Context(), stormTime)
	defer cancel()
	var users, watch sync.WaitGroup
	for i := range stormUsers {
		users.Go(func() {
			u := &stormUser{storm: s, id: i, rng: rand.New(rand.NewPCG(11, uint64(i)))}
			for ctx.Err() == nil && !s.t.Failed() {
				u.act()
			}
		})
	}
	watch.Go(func() { s.watchBackends(ctx) })
	watch.Go(func() { s.watchWaiters(ctx) })
	users.Wait()
	watch.Wait()
	s.t.Logf("%d calls, %d connections opened, %d at most at once, closed: %v", s.calls.Load(), s.gate.seen(), s.gate.most(),
		s.pool.Stats().ClosedBy)
	if most := s.gate.most(); most > stormLimit {
		s.t.Errorf("%d sockets at once, want at most %d", most, stormLimit)
	}
}

// watchBackends looks whether the server has more sessions than there may be, those apart that are just exiting.
func (s *storm) watchBackends(ctx context.Context) {
	bare, err := sql.Open("pgx", pgtest.Shared(s.t).DSN())
	if err != nil {
		s.t.Error(err)
		return
	}
	defer bare.Close()
	backends := func() []string {
		const query = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE datname = $1"
		var pids string
		if err := bare.QueryRow(query, s.name).Scan(&pids); err != nil {
			s.t.Error(err)
		}
		return strings.Fields(pids)
	}
	for ctx.Err() == nil {
		seen := backends()
		if len(seen) > stormLimit {
			left := seen
			rig.Eventually(s.t, "sessions beyond the limit to be exiting ones", func() bool {
				now := backends()
				left = slices.DeleteFunc(left, func(pid string) bool { return !slices.Contains(now, pid) })
				return len(left) <= stormLimit
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// watchWaiters looks whether somebody waits beside a free connection.
func (s *storm) watchWaiters(ctx context.Context) {
	stuck := func() (checkouts int64, stuck bool) {
		st := s.pool.Stats()
		if st.CheckedOut > stormLimit || st.Open > stormLimit || st.Utilization > 1 || st.TotalCheckouts != st.TotalCheckins+st.CheckedOut ||
			st.TotalConnectionsCreated != st.TotalConnectionsClosed+st.Open {
			s.t.Errorf("impossible figures:\n%v", st)
		}
		return st.TotalCheckouts, st.Waiting > 0 && st.CheckedIn > 0
	}
	for ctx.Err() == nil {
		before, was := stuck()
		if was {
			// A moment later somebody must have been served.
			patience := time.After(5 * time.Second)
			for checkouts, still := stuck(); still && checkouts == before; checkouts, still = stuck() {
				select {
				case <-patience:
					s.t.Errorf("somebody waits beside a free connection:\n%v", s.pool.Stats())
					return
				case <-time.After(time.Millisecond):
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// settle checks what is left when everybody has gone.
func (s *storm) settle() {
	t := s.t
	_ = s.stmt.Close()
	rig.Eventually(t, "everything to be given back", func() bool { return s.pool.Stats().CheckedOut == 0 && s.db.Stats().InUse == 0 })
	st := s.pool.Stats()
	if st.TotalCheckouts != st.TotalCheckins || st.TotalConnectionsCreated != st.TotalConnectionsClosed+st.Open || st.Waiting != 0 {
		t.Errorf("figures that don't add up:\n%v", st)
	}
	if st.UseTime.Count != st.TotalCheckins || st.CheckoutTime.Count != st.TotalCheckouts {
		t.Errorf("%d check-ins and %d checkouts, but %d and %d times", st.TotalCheckins, st.TotalCheckouts, st.UseTime.Count, st.CheckoutTime.Count)
	}
	rig.Eventually(t, "the sockets to be as many as the pool counts", func() bool {
		return int64(s.gate.established()) == s.pool.Stats().Open && s.pool.Stats().Open <= 5
	})
	rig.Eventually(t, "the server to have as many sessions as the pool counts", func() bool {
		n, err := pgtest.Shared(t).Backends(s.name)
		return err == nil && int64(n) == s.pool.Stats().Open
	})

	// All permits are back: 8 can be held at once, and no ninth.
	s.db.SetMaxOpenConns(0)
	var held []*sql.Conn
	for range stormLimit {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		c, err := s.db.Conn(ctx)
		cancel()
		if err != nil {
			t.Fatalf("connection %d of %d: %v", len(held)+1, stormLimit, err)
		}
		if err := c.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	if _, err := s.db.Conn(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a ninth connection: %v", err)
	}
	cancel()
	for _, c := range held {
		_ = c.Close()
	}

	if err := s.db.Close(); err != nil {
		t.Error(err)
	}
	rig.Eventually(t, "all sockets to be closed", func() bool { return s.gate.established() == 0 })
	if st := s.pool.Stats(); st.Open != 0 || st.CheckedOut != 0 {
		t.Errorf("after Close:\n%v", st)
	}
}

// own says that a session is this user's from now on, until disown. Nobody else may say so meanwhile.
func (s *storm) own(user, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, taken := s.owner[pid]; taken {
		s.t.Errorf("users %d and %d have the same session", other, user)
	}
	s.owner[pid] = user
}

func (s *storm) disown(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.owner, pid)
}

type stormUser struct {
	*storm
	id  int
	rng *rand.Rand
}

// act does one thing, in a context that may end in the middle of it.
func (u *stormUser) act() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch u.rng.IntN(6) {
	case 0:
		ctx, cancel = context.WithTimeout(ctx, time.Duration(u.rng.IntN(5000))*time.Microsecond)
		defer cancel()
	case 1:
		defer time.AfterFunc(time.Duration(u.rng.IntN(5000))*time.Microsecond, cancel).Stop()
	}
	acts := []func(context.Context, context.CancelFunc) error{
		u.exec, u.exec, u.prepared, u.queryLeftOpen, u.tx, u.txLeftToContext, u.conn, u.prepare, u.sleep,
	}
	err := acts[u.rng.IntN(len(acts))](ctx, cancel)
	u.calls.Add(1)
	switch {
	case err == nil:
	case ctx.Err() == nil:
		u.t.Errorf("an error without cause: %v", err)
	case errors.Is(err, ctx.Err()), errors.Is(err, sql.ErrTxDone), errors.Is(err, sql.ErrConnDone):
	case rig.SQLState(err) == "57014":
	case errors.Is(err, managedpg.ErrTxLost):
		// lib/pq closes the connection of a call that ends together with its context, though the call has succeeded: the
		// transaction goes with it, and its next call is the first to know.
	default:
		u.t.Errorf("an error that isn't its context's: %v", err)
	}
}

func (u *stormUser) exec(ctx context.Context, _ context.CancelFunc) error {
	if u.rng.IntN(2) == 0 {
		_, err := u.db.ExecContext(ctx, "INSERT INTO t VALUES (1)")
		return err
	}
	_, err := u.db.ExecContext(ctx, "INSERT INTO t VALUES ($1)", u.id)
	return err
}

func (u *stormUser) prepared(ctx context.Context, _ context.CancelFunc) error {
	_, err := u.stmt.ExecContext(ctx, u.id)
	return err
}

func (u *stormUser) prepare(ctx context.Context, _ context.CancelFunc) error {
	st, err := u.db.PrepareContext(ctx, fmt.Sprintf("SELECT n + %d FROM generate_series(1, $1) n", u.rng.IntN(20)))
	if err != nil {
		return err
	}
	defer st.Close()
	for range 2 {
		rows, err := st.QueryContext(ctx, 3)
		if err != nil {
			return err
		}
		n := 0
		for rows.Next() {
			n++
		}
		if err := rows.Close(); err != nil {
			return err
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if n != 3 {
			u.t.Errorf("%d rows, want 3", n)
		}
	}
	return nil
}

// queryLeftOpen reads one row, and leaves the rest to the context's end.
func (u *stormUser) queryLeftOpen(ctx context.Context, cancel context.CancelFunc) error {
	rows, err := u.db.QueryContext(ctx, "SELECT pg_backend_pid() FROM generate_series(1, 20000)")
	if err != nil {
		return err
	}
	if !rows.Next() {
		return rows.Err()
	}
	var pid int
	if err := rows.Scan(&pid); err != nil {
		return err
	}
	if u.rng.IntN(2) == 0 && ctx.Err() == nil {
		cancel()
	}
	if _, limited := ctx.Deadline(); limited {
		<-ctx.Done()
	} else {
		cancel()
	}
	for rows.Next() {
	}
	return rows.Err()
}

func (u *stormUser) tx(ctx context.Context, _ context.CancelFunc) error {
	// A transaction whose context ends goes back to the pool at once, so who owns its session isn't known then.
	tx, err := u.db.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := u.use(ctx, tx); err != nil {
		return err
	}
	if u.rng.IntN(2) == 0 {
		return tx.Rollback()
	}
	return tx.Commit()
}

func (u *stormUser) txLeftToContext(ctx context.Context, cancel context.CancelFunc) error {
	tx, err := u.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: u.rng.IntN(2) == 0})
	if err != nil {
		return err
	}
	if _, err = tx.ExecContext(ctx, "SELECT 1"); err != nil {
		_ = tx.Rollback()
		return err
	}
	cancel()
	return nil
}

func (u *stormUser) conn(ctx context.Context, _ context.CancelFunc) error {
	c, err := u.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return u.use(ctx, c)
}

// use does several things in one session, of which nobody else may see anything.
func (u *stormUser) use(ctx context.Context, on interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}) error {
	var pid int
	if err := on.QueryRowContext(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	u.own(u.id, pid)
	defer u.disown(pid)
	token := fmt.Sprintf("%d-%d", u.id, u.rng.Int64())
	if _, err := on.ExecContext(ctx, "SET storm.token = '"+token+"'"); err != nil {
		return err
	}
	for range u.rng.IntN(3) {
		var got string
		var again int
		err := on.QueryRowContext(ctx, "SELECT current_setting('storm.token'), pg_backend_pid() WHERE $1 > 0", 1).Scan(&got, &again)
		if err != nil {
			return err
		}
		if got != token || again != pid {
			u.t.Errorf("set %s in session %d, read %s in session %d", token, pid, got, again)
		}
	}
	return nil
}

func (u *stormUser) sleep(ctx context.Context, cancel context.CancelFunc) error {
	defer time.AfterFunc(time.Duration(u.rng.IntN(10))*time.Millisecond, cancel).Stop()
	_, err := u.db.ExecContext(ctx, "SELECT pg_sleep(10)")
	return err
}

// gate stands between clients and a server, and counts the clients' sockets at each moment when there is one more. Those
// of cancel requests don't count.
type gate struct {
	addr     string
	upstream string
	serving  sync.WaitGroup

	mu       sync.Mutex
	sessions map[net.Conn]bool
	all, max int
}

func newGate(t *testing.T, upstream string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{addr: l.Addr().String(), upstream: upstream, sessions: map[net.Conn]bool{}}
	g.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.serving.Go(func() { g.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		g.mu.Lock()
		for c := range g.sessions {
			_ = c.Close()
		}
		g.mu.Unlock()
		g.serving.Wait()
	})
	return g
}

func (g *gate) serve(client net.Conn) {
	defer client.Close()
	first := make([]byte, 8)
	if _, err := io.ReadFull(client, first); err != nil {
		return
	}
	server, err := net.Dial("tcp", g.upstream)
	if err != nil {
		return
	}
	defer server.Close()
	const cancelRequest = 80877102
	if binary.BigEndian.Uint32(first[4:]) != cancelRequest {
		g.mu.Lock()
		g.sessions[client] = true
		g.all++
		g.mu.Unlock()
		g.established()
		defer func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.sessions, client)
		}()
	}
	if _, err := server.Write(first); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_, _ = io.Copy(server, client)
	_ = server.Close()
	back.Wait()
}

// established counts the sessions whose client has not closed its socket. That a socket is closed is told by the system,
// where it can be asked: the gate itself may hear of it later than of the next one. The system tells of one socket after the
// other, so only those that it names twice were open at one moment.
func (g *gate) established() int {
	open, known := establishedTo(g.addr)
	again, _ := establishedTo(g.addr)
	maps.DeleteFunc(open, func(port string, _ bool) bool { return !again[port] })
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for c := range g.sessions {
		_, port, _ := net.SplitHostPort(c.RemoteAddr().String())
		if !known || open[port] {
			n++
		}
	}
	g.max = max(g.max, n)
	return n
}

func (g *gate) most() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.max
}

func (g *gate) seen() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all
}

// establishedTo gives the local ports of the TCP connections to an address that are established, as Linux tells.
func establishedTo(addr string) (ports map[string]bool, known bool) {
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		return nil, false
	}
	_, port, _ := net.SplitHostPort(addr)
	ports = map[string]bool{}
	lines := bufio.NewScanner(bytes.NewReader(table))
	for lines.Scan() {
		// sl local_address rem_address st ...; an address is hexadecimal, ip:port. State 1 is established.
		f := strings.Fields(lines.Text())
		if len(f) < 4 || f[3] != "01" || hexPort(f[2]) != port {
			continue
		}
		ports[hexPort(f[1])] = true
	}
	return ports, true
}

func hexPort(address string) string {
	_, port, _ := strings.Cut(address, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return ""
	}
	return strconv.FormatUint(n, 10)
}
