package sim

import (
	"database/sql"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/managedpg/managedpg"
)

// world is one run.
type world struct {
	plan    *plan
	began   time.Time
	net     *network
	cluster *cluster
	db      *sql.DB

	mu         sync.Mutex // guards what follows
	history    []string
	wrong      []string
	calls      map[int64]*call
	lastRow    int64
	mended     time.Time
	closed     bool  // before the load was over
	closing    bool  // the pool is being closed, or is
	unanswered int64 // cancel requests

	operating sync.Mutex // one operation at a time
}

// Result is what came of a run.
type Result struct {
	Wrong []string // what must not be
	Log   []string
	Hash  uint64 // of the log
	Calls int
	OK    int
}

// Run plays a seed without some of its faults. It is called in a bubble of testing/synctest's.
func Run(seed uint64, without ...int) *Result {
	seedBubble(seed)
	w := &world{plan: newPlan(seed), began: time.Now(), calls: make(map[int64]*call)}
	w.plan.drop(without)
	w.cluster = newCluster(w.plan.servers, w.log, rand.New(rand.NewPCG(seed, 2)))
	delays := rand.New(rand.NewPCG(seed, 3))
	w.net = newNetwork(w.log, func() time.Duration { return time.Duration(50+delays.IntN(500)) * time.Microsecond }, w.lateness(delays))
	for _, s := range w.cluster.servers {
		s.language, s.tls, s.slow = w.plan.language, w.plan.tls, w.plan.commits
		w.net.listen[s.name+":5432"] = s
	}
	over := make(chan struct{})
	go w.scrape(over)
	defer close(over)
	w.net.keeps, w.net.answers = w.keeps, w.answers
	dialBy(w.net)
	if err := w.open(); err != nil {
		w.fail("open: %v", err)
	} else {
		w.work()
		if len(w.net.brokenOff) > 0 {
			w.fail("connections %v were given up, and met no fault", w.net.brokenOff)
		}
		if len(w.net.cutShort) > 0 {
			w.fail("connections %v were closed in the middle of a question that would have been answered", w.net.cutShort)
		}
		w.close()
	}
	w.check()
	h := fnv.New64a()
	h.Write([]byte(strings.Join(w.history, "\n")))
	r := &Result{Wrong: w.wrong, Log: w.history, Hash: h.Sum64(), Calls: len(w.calls)}
	for _, c := range w.calls {
		if c.told == toldOK {
			r.OK++
		}
	}
	return r
}

// keeps says that a connection that there is has to go on: whatever new ones meet, and after a promotion those to the new primary; but
// not to one that was the primary before, as what was opened to it might lead to what it was then, nor while two could be written to, or what
// another one has said as a primary may be on its way.
func (w *world) keeps(k *link) bool {
	if !w.plan.orders {
		return w.plan.gentle
	}
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.moving && c.primary.led == 1 && k.address == c.primary.name+":5432" && k.opened.After(c.primary.promoted) &&
		k.opened.After(c.two.Add(mostLate)) && !slices.ContainsFunc(c.servers, (*server).staleLocked)
}

// lateness is by how much something that is sent is late: nothing but for one in so many, which was lost and is sent again. Where the orders matter
// in which answers come, it is answers.
func (w *world) lateness(r *rand.Rand) func(answer bool) time.Duration {
	return func(answer bool) time.Duration {
		if w.plan.late == 0 || w.plan.orders && !answer || r.IntN(w.plan.late) > 0 {
			return 0
		}
		return 10*time.Millisecond + time.Duration(r.Int64N(int64(mostLate)))
	}
}

// mostLate is how late a part is at most, but for some ms.
const mostLate = 240 * time.Millisecond

// answers says that a question that is under way on a connection will be answered, and nobody but its asker can want it closed.
func (w *world) answers(k *link) bool {
	w.mu.Lock()
	closed := w.closing
	w.mu.Unlock()
	c := w.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.at(k.address)
	return !closed && s.up && s == c.primary && s.fenced.IsZero()
}

func (w *world) log(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.history = append(w.history, fmt.Sprintf("%12v  %s", time.Since(w.began), fmt.Sprintf(format, args...)))
}

// fail notes what must not be.
func (w *world) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.log("WRONG: %s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, text)
}

// scrape asks for all figures again and again, from before there is a pool.
func (w *world) scrape(over <-chan struct{}) {
	for {
		for _, p := range managedpg.Pools() {
			p.Stats()
			p.Health()
			p.Usage()
		}
		select {
		case <-over:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *world) open() error {
	var names, ports []string
	for _, s := range w.cluster.servers {
		names, ports = append(names, s.name), append(ports, "5432")
	}
	w.net.names["db"] = names
	w.pointTo(w.cluster.servers[0])
	if w.plan.names != namesEach {
		names, ports = []string{"db"}, ports[:1]
	}
	dsn := fmt.Sprintf("host=%s port=%s user=u password=p dbname=bank %s",
		strings.Join(names, ","), strings.Join(ports, ","), strings.Join(w.plan.options, " "))
	w.log("dsn: %s", dsn)
	cfg, err := managedpg.ParseDSN(dsn)
	if err != nil {
		return err
	}
	if !w.plan.pq {
		cfg.PgxConfig = func(c *pgx.ConnConfig) error {
			c.DialFunc, c.LookupFunc = w.net.dial, w.net.lookup
			return nil
		}
	}
	cfg.Logger = slog.New(slog.NewTextHandler(logger{w}, nil))
	if w.db, err = managedpg.OpenDB(cfg); err != nil {
		return err
	}
	if w.plan.size == 0 {
		w.db.SetMaxIdleConns(100)
	}
	return nil
}

// logger puts the pool's log into the history.
type logger struct{ w *world }

func (l logger) Write(b []byte) (int, error) {
	_, text, _ := strings.Cut(strings.TrimSpace(string(b)), " ") // without the time
	l.w.log("log: %s", text)
	if strings.Contains(text, `msg="managedpg: endpoint is fenced"`) && !strings.Contains(text, "/reads ") {
		l.w.cluster.fenced(text)
	}
	return len(b), nil
}

// fenced notes which server the pool says it has fenced. The pool for reads, which finds out for itself, writes nothing. What it says of the
// timeline that a server was on before holds for that one.
func (c *cluster) fenced(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		if s.fenced.IsZero() && !s.standby && s != c.primary && strings.Contains(text, " endpoint="+s.name+":5432") &&
			strings.Contains(text, fmt.Sprintf("on timeline %d,", s.timeline)) {
			s.fenced = time.Now()
		}
	}
}

// close closes the pool, after which nothing may be left.
func (w *world) close() {
	w.closePool()
	time.Sleep(3 * time.Second)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	for _, k := range w.net.links {
		w.fail("link %d to %s is left", k.id, k.address)
	}
}
